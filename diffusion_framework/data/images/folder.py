"""A folder of image files as a dataset."""

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import copy
from functools import cached_property
from typing import Literal

import numpy as np
import PIL
from beartype import beartype

from ...parts.counting import counted
from .encoded import EncodedImages, file_endings
from .paths import Paths
from .resize import Fit
from .scan import Scan, scan_folder
from .transforms import Transform


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

    @beartype
    def __init__(
        self,
        folder: str | os.PathLike,
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        *,
        labels: bool = False,
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
            labels: Whether to load class labels; samples are then (image, label). Classes are the
                top-level subfolders, numbered from 0 in the order of their names.
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
                subfolders (with labels), or an option is out of range.
        """
        options = background, broken, convert_image_to, seed, value_range, bits, fit, transform
        super().__init__(image_size, channels, crop, *options)
        self.extensions = file_endings(extensions)
        scan = scan_folder(folder, tuple(self.extensions))
        self.folder, self.dangling_links = scan.folder, scan.dangling_links
        self.other_files = scan.other_files
        self.paths = Paths(scan.paths)
        self.worth_caching = crop == "center" and transform is None
        self.labels: np.ndarray | None = None
        if labels:
            self.class_names, self.labels = classes_of(scan)

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
        notes = [f"left out: {counted(count, what)}" for what, count in left_out.items() if count]
        folders = {path.partition("/")[0] for path in self.paths if "/" in path}
        if self.labels is None and len(folders) > 1:
            flags = f"--data.labels true --diffusion.model.num_classes {len(folders)}"
            notes += [f"{len(folders)} subfolders; {flags} makes them classes"]
        return notes

    def class_labels(self) -> np.ndarray | None:
        return self.labels

    def subset(self, indices: np.ndarray) -> "ImageFolder":
        part = copy(self)
        part.paths = Paths([self.paths[int(index)] for index in indices])
        part.labels = None if self.labels is None else self.labels[indices]
        vars(part).pop("_fingerprint", None)
        return part

    def encoded(self, index: int) -> tuple[str, int | None]:
        label = None if self.labels is None else int(self.labels[index])
        return os.path.join(self.folder, self.paths[index]), label

    def fingerprint(self) -> str:
        """Returns a hash of the relative paths and sizes; file contents are not read."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return self._hashed(lambda status: (status.st_size,))

    def version(self) -> str:
        """Returns a hash of paths, sizes, both times and inodes, and of Pillow's version."""
        times = self._hashed(
            lambda status: (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        )
        return hashlib.sha256(f"{PIL.__version__} {times}".encode()).hexdigest()

    def _hashed(self, numbers: Callable[[os.stat_result], Iterable[int]]) -> str:
        """Returns a hash of the relative paths, with some numbers of each file's status."""
        digest = hashlib.sha256()
        for path in self.paths:
            found: Iterable[int] = ()
            with suppress(OSError):  # reported when the image is drawn
                found = numbers(os.stat(os.path.join(self.folder, path)))
            digest.update(os.fsencode(path) + b"\0" + " ".join(map(str, found)).encode() + b"\0")
        return digest.hexdigest()


def classes_of(scan: Scan) -> tuple[list[str], np.ndarray]:
    """Returns the sorted names of the top-level subfolders with images, and each image's label.

    Raises:
        ValueError: an image lies directly in the folder.
    """
    for path in scan.paths:
        if "/" not in path:
            raise ValueError(
                "Expected each image in a subfolder named after its class, "
                f"got {path!r} directly in {scan.folder!r}. "
                "Fix: move it, or set --data.labels false."
            )
    names = [path.partition("/")[0] for path in scan.paths]
    class_names = sorted(set(names))
    label_of = {name: label for label, name in enumerate(class_names)}
    return class_names, np.array([label_of[name] for name in names], np.int32)
