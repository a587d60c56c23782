"""Images in the IDX format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..dataset import ImageDataset, ImageTensor
from ..loading.memory import free_memory


class IDX(ImageDataset):
    """Grey images from a pair of IDX files, such as MNIST or Fashion-MNIST.

    The files are `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or `t10k-...` for the
    test split, each with or without `.gz` (LeCun et al. 1998).

    Args:
        folder: Folder with the files, under MNIST's names.
        image_size: Side of the square images, or [height, width], at least the size in the files.
            Larger images get a black border, centred to within a pixel.
        channels: 1 for grey, 3 for RGB.
        split: 'train', or 'test' for the files named t10k.
        labels: Whether to load the class labels; samples are then (image, label).

    Raises:
        ValueError: a file is missing, truncated or not an IDX file; image_size is too small; or
            channels is neither 1 nor 3.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        image_size: int | tuple[int, int] = 28,
        channels: int = 1,
        *,
        split: Literal["train", "test"] = "train",
        labels: bool = False,
    ) -> None:
        super().__init__(image_size, channels)
        if channels not in (1, 3):
            raise ValueError(
                f"Expected channels 1 or 3 for grey images, got {channels}. Fix: take 1 or 3."
            )
        if split not in ("train", "test"):
            raise ValueError(
                f"Expected split 'train' or 'test', got {split!r}. Fix: take one of these."
            )
        stem = {"train": "train", "test": "t10k"}[split]
        self.images = read_idx(_find(folder, f"{stem}-images-idx3-ubyte"), dimensions=3)
        self.labels: Tensor | None = None
        if labels:
            self.labels = read_idx(_find(folder, f"{stem}-labels-idx1-ubyte"), dimensions=1)
            if len(self.labels) != len(self.images):
                raise ValueError(
                    f"Expected {len(self.images)} labels for the {len(self.images)} images "
                    f"in {folder}, got {len(self.labels)}. Fix: download both files again."
                )
            self.class_names = [str(label) for label in range(int(self.labels.max()) + 1)]
        height, width = self.images.shape[1:]
        if self.image_size[0] < height or self.image_size[1] < width:
            raise ValueError(
                f"Expected image_size of at least {[height, width]} for {folder}, "
                f"got {list(self.image_size)}. Fix: raise the image_size of the network."
            )

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, index: int, epoch: int) -> ImageTensor | tuple[ImageTensor, int]:
        self.check_index(index)
        image = self.images[index]
        extra_height, extra_width = (
            size - own for size, own in zip(self.image_size, image.shape, strict=True)
        )
        left, top = extra_width // 2, extra_height // 2
        border = (left, extra_width - left, top, extra_height - top)
        padded = torch.nn.functional.pad(image, border).expand(self.channels, -1, -1).contiguous()
        return padded if self.labels is None else (padded, int(self.labels[index]))

    def class_labels(self) -> np.ndarray | None:
        return None if self.labels is None else self.labels.numpy()

    def fingerprint(self) -> str:
        """Returns a hash of all pixels and of image_size."""
        return hashlib.sha256(
            self.images.numpy().tobytes() + repr(self.image_size).encode()
        ).hexdigest()


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Reads an IDX file of unsigned bytes, gzipped or not, into a uint8 tensor.

    Args:
        path: Path of the file; `.gz` means gzipped.
        dimensions: Expected number of dimensions.

    Raises:
        ValueError: the file is not an IDX file of unsigned bytes, has other dimensions, holds more
            or fewer bytes than its header states, or exceeds the free memory.
    """
    start = 4 + 4 * dimensions  # header: 0, 0, 8 (unsigned byte), dimensions, sizes
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            shape = _shape(file.read(start), dimensions, path)
            data = file.read(math.prod(shape) + 1)  # a short file may unpack to any length
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"Expected a readable IDX file, got {path} ({error}). Fix: download it again."
        ) from error
    if len(data) != math.prod(shape):
        got = "more" if len(data) > math.prod(shape) else len(data)
        raise ValueError(
            f"Expected {list(shape)} bytes of pixels in {path}, got {got}. Fix: download it again."
        )
    return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(shape).copy())


def _shape(header: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    """Returns the sizes in the header of an IDX file."""
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(
            f"Expected an IDX file of unsigned bytes with {dimensions} dimensions, got {path}. "
            "Fix: download it again."
        )
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 2 * math.prod(shape) > (free := free_memory()):
        raise ValueError(
            f"Expected pixels that fit twice into {free / 1e9:.3g} GB of free memory, got "
            f"{list(shape)} in {path}. Fix: use a folder of images, or download it again."
        )
    return shape


def _find(folder: str | os.PathLike[str], name: str) -> Path:
    for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(
        f"Expected {name} or {name}.gz in {folder}, got neither. "
        "Fix: set folder to the folder with MNIST's files."
    )
