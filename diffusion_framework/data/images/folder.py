"""A folder of image files as a dataset."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import PIL
import torch
from beartype import beartype
from torch import Tensor

from ...parts.counting import counted
from .beside import conditions_of
from .encoded import EncodedImages, file_endings
from .headers import header_notes, read_headers
from .metadata import metadata_files
from .pairs import Pairs, checked_copy, find_pairs, shrink
from .resize import Fit
from .scan import scan_folder
from .texts import Texts
from .transforms import Transform
from .values import Values, as_batch, as_sample


class ImageFolder(EncodedImages):
    """All images in a folder and its subfolders, sorted by relative path.

    Hidden files and folders are left out. Symbolic links are followed, but each file counts once.

    Attributes:
        folder: Absolute path of the folder.
        paths: Path of each image relative to `folder`, with forward slashes.
        dangling_links: Number of links left out because their target does not exist.
        other_files: Number of files left out because of their endings.
    """

    folder: str
    paths: Texts
    values: Values

    @beartype
    def __init__(
        self,
        folder: str | os.PathLike,
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        *,
        labels: bool | str = False,
        classes: list[str] | None = None,
        captions: bool | str = False,
        vectors: list[str] | None = None,
        pairs: str | os.PathLike | None = None,
        pair_channels: int | None = None,
        low_resolution: int | tuple[int, int] | None = None,
        crop: Literal["center", "random"] = "center",
        background: tuple[int, int, int] = (255, 255, 255),
        broken: Literal["error", "skip"] = "error",
        convert_image_to: str | None = None,
        seed: int = 0,
        extensions: list[str] | None = None,
        value_range: tuple[int | float, int | float] | None = None,
        bits: Literal[8, 16] | None = None,
        fit: Fit = "crop",
        transform: Transform | None = None,
    ):
        """Lists the folder; images are decoded later, when drawn.

        Args:
            folder: Folder to search, with all its subfolders.
            image_size: Side of the square images, or [height, width].
            channels: 1 for grey, 3 for RGB, 4 for RGBA, which keeps transparency; another number
                for TIFF files with so many channels.
            labels: Whether to load class labels: true for the top-level subfolders as classes, or
                the column of metadata.jsonl or metadata.csv that names them. Classes are numbered
                from 0 in the order of their names.
            classes: Names of the only classes to load, such as [daisy, rose]; null for all.
            captions: Whether to load texts: true for .txt files beside the images or, without any,
                the column text of the metadata; or columns, joined as category,text.
            vectors: Columns of the metadata whose numbers form a vector for each image.
            pairs: Folder with a second image for each one, of the same relative name without the
                ending; it is the condition `image`, cropped like the first.
            pair_channels: Number of channels of the pairs; null for `channels`.
            low_resolution: Side, or [height, width], of a smaller copy of each image that is its
                condition `image`, for super-resolution.
            crop: Position of the crop: 'center', or 'random', which differs in each epoch.
            background: Red, green and blue in 0..255 behind transparent pixels, for 1 and 3
                channels.
            broken: Reaction to an image that cannot be decoded: 'error', or 'skip', which warns
                and takes the next image.
            convert_image_to: Pillow mode that colours are converted to and back, such as L for
                grey images in RGB.
            seed: Seed for the random crops.
            extensions: File endings to search for, such as [png, jpg]; null for all formats that
                Pillow decodes.
            value_range: Smallest and largest value of all images of more than 8 bits; null for the
                range of their integer type, or [0, 1] for floats.
            bits: Bits per channel of the samples: 16 keeps the depth of images of more than 8 bits,
                8 reduces it. null means 16 if the first image has more than 8 bits, otherwise 8.
            fit: Way to bring images to image_size: 'crop' to its proportions, 'pad' with
                `background`, or 'stretch'.
            transform: Own function of each decoded Pillow image. It returns an image, which is
                then brought to image_size, or the sample as a tensor [channels, height, width].
                Its random numbers are functions of (seed, image, epoch). Not for flags and files.

        Raises:
            FileNotFoundError: the folder does not exist.
            ValueError: `folder` is a file, the folder holds no image, an image lies outside the
                subfolders (with labels), an image lacks a condition or has two, the metadata is
                damaged, or an option is out of range.
        """
        options = background, broken, convert_image_to, seed, value_range, bits, fit, transform
        super().__init__(image_size, channels, crop, *options)
        self.extensions = file_endings(extensions)
        scan = scan_folder(folder, tuple(self.extensions))
        self.folder, self.dangling_links = scan.folder, scan.dangling_links
        self.other_files = scan.other_files
        self.worth_caching = crop == "center" and transform is None
        found = conditions_of(scan, labels, classes, captions, vectors)
        self.paths, self.values, self.class_names = found.paths, found.values, found.class_names
        self.other_files -= found.files_read
        self.small = checked_copy(low_resolution, self.image_size, pairs)
        self.pair_channels = pair_channels or channels
        self.pairs: Pairs | None = None
        if pairs is not None:
            self.pairs = find_pairs(self.folder, self.paths, pairs, self.extensions)
        self._labels_in_table = isinstance(labels, str)

    def __repr__(self) -> str:
        shown = self.extensions[:6] + (
            [f"{len(self.extensions) - 6} more"] if len(self.extensions) > 6 else []
        )
        return f"ImageFolder({self.folder!r}, endings {' '.join(shown)})"

    def __len__(self) -> int:
        return len(self.paths)

    def notes(self) -> list[str]:
        left_out = {"non-image file": self.other_files}
        left_out["broken link"] = self.dangling_links
        left_out["second image without a first"] = 0 if self.pairs is None else self.pairs.unused
        notes = [f"left out: {counted(count, what)}" for what, count in left_out.items() if count]
        headers = read_headers(self.folder, self.paths)
        shape = self.image_size, self.channels
        notes += header_notes(headers, len(self), *shape, skips=self.broken == "skip")
        folders = {path.partition("/")[0] for path in self.paths if "/" in path}
        if self.values.labels is None and len(folders) > 1:
            flags = f"--data.labels true --diffusion.model.num_classes {len(folders)}"
            notes += [f"{len(folders)} subfolders; {flags} makes them classes"]
        if self.values.is_empty() and (tables := metadata_files(self.folder, self.paths)):
            options = "--data.labels COLUMN, --data.captions COLUMN or --data.vectors COLUMN"
            notes += [f"{tables[0]} is not read; {options} makes it a condition"]
        return notes

    def describe(self) -> str:
        height, width = self.shapes[-1][1:]
        pairs = "" if self.pairs is None else ", each with a second image"
        copies = "" if self.small is None else f", each with a copy of {width} x {height}"
        return super().describe() + self.values.describe() + pairs + copies

    def class_labels(self) -> np.ndarray | None:
        return self.values.labels

    def subset(self, indices: np.ndarray) -> "ImageFolder":
        part = copy(self)
        part.paths, part.values = self.paths.chosen(indices), self.values.subset(indices)
        part.pairs = None if self.pairs is None else self.pairs.subset(indices)
        vars(part).pop("_fingerprint", None)
        return part

    def encoded(self, index: int) -> tuple[str, dict[str, Any]]:
        return os.path.join(self.folder, self.paths[index]), self.values.at(index)

    def pictures_beside(self, image: Tensor, index: int, epoch: int) -> dict[str, Tensor]:
        if self.pairs is not None:
            path = self.pairs.path(index)
            return {"image": self._decode(path, index, epoch, self.pair_channels)}
        return {} if self.small is None else {"image": shrink(image, self.small)}

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the pictures of each sample: of the image and, if there is one, its pair."""
        shape = (self.channels, *self.image_size)
        if self.pairs is not None:
            return [shape, (self.pair_channels, *self.image_size)]
        return [shape] if self.small is None else [shape, (self.channels, *self.small)]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shapes[0] if len(self.shapes) == 1 else (sum(map(math.prod, self.shapes)),)

    def row(self, index: int) -> tuple[Tensor, int]:
        """Returns the pixels of a sample and the index of its conditions; see `ImageDataset`."""
        image, index, values = self.drawn(index, 0)
        pictures = [image.flatten(), values["image"].flatten()] if "image" in values else [image]
        return torch.cat(pictures), index

    def from_row(self, pixels: Tensor, number: int) -> Any:
        image, beside = self._parted(pixels[None])
        pictures = {name: picture[0] for name, picture in beside.items()}
        return as_sample(image[0], {**self.values.at(number), **pictures})

    def from_rows(self, pixels: Tensor, numbers: Tensor) -> list[Any]:
        image, beside = self._parted(pixels)
        return as_batch(image, {**self.values.batch(numbers.numpy()), **beside})

    def _parted(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the images in rows [batch, *row_shape], and their pairs by name."""
        if len(self.shapes) == 1:
            return pixels, {}
        shape, beside = self.shapes
        own = math.prod(shape)
        image, pair = pixels[:, :own], pixels[:, own:]
        return image.reshape(-1, *shape), {"image": pair.reshape(-1, *beside)}

    def fingerprint(self) -> str:
        """Returns a hash of the paths, sizes and conditions; image contents are not read."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        files = self._hashed(lambda status: (status.st_size,))
        told = self.values if self._labels_in_table else replace(self.values, labels=None)
        if told.is_empty():
            return files
        names = "\0".join(self.class_names) if self._labels_in_table else ""
        return hashlib.sha256(f"{files} {told.digest()} {names}".encode()).hexdigest()

    def version(self) -> str:
        """Returns a hash of paths, sizes, both times and inodes, and of Pillow's version."""
        times = self._hashed(
            lambda status: (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        )
        return hashlib.sha256(f"{PIL.__version__} {times}".encode()).hexdigest()

    def _hashed(self, numbers: Callable[[os.stat_result], Iterable[int]]) -> str:
        """Returns a hash of the relative paths, with some numbers of each file's status."""
        digest = hashlib.sha256()
        places = [(self.folder, self.paths)]
        if self.pairs is not None:
            places.append((self.pairs.folder, self.pairs.paths))
        for folder, paths in places:
            for path in paths:
                found: Iterable[int] = ()
                with suppress(OSError):  # reported when the image is drawn
                    found = numbers(os.stat(os.path.join(folder, path)))
                told = " ".join(map(str, found)).encode()
                digest.update(os.fsencode(path) + b"\0" + told + b"\0")
        return digest.hexdigest()
