"""Images in the IDX format, that of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..dataset import ImageDataset, Picture


class IDX(ImageDataset):
    """Grey images of a pair of IDX files, such as `train-images-idx3-ubyte.gz` and `train-labels-idx1-ubyte.gz`.

    Args:
        folder: Where the files lie, with or without `.gz`, named as MNIST's.
        image_size: Side of the square images, or (height, width), at least the files' own; what is more becomes an even
            border of 0.
        channels: 1 for grey, 3 for RGB.
        split: train, or test for the files whose names begin with t10k.
        labels: Give each image with its class.

    Raises:
        ValueError: no such file, one that is no IDX file or cut off, too small an image_size, or other channels.
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
            raise ValueError(f"IDX files hold grey images, as channels 1 or 3; got {channels}")
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test'; got {split!r}")
        stem = {"train": "train", "test": "t10k"}[split]
        self.images = read_idx(_find(folder, f"{stem}-images-idx3-ubyte"), dimensions=3)
        self.labels: list[int] | None = None
        if labels:
            self.labels = read_idx(_find(folder, f"{stem}-labels-idx1-ubyte"), dimensions=1).tolist()
            if len(self.labels) != len(self.images):
                raise ValueError(f"{folder} holds {len(self.images)} images but {len(self.labels)} labels")
            self.class_names = [str(label) for label in range(max(self.labels) + 1)]
        height, width = self.images.shape[1:]
        if self.image_size[0] < height or self.image_size[1] < width:
            raise ValueError(
                f"the images of {folder} are {height} x {width}; got image_size {list(self.image_size)}: "
                "give the network one at least as large"
            )

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, index: int, epoch: int) -> Picture | tuple[Picture, int]:
        self.check_index(index)
        image = self.images[index]
        down, right = (whole - part for whole, part in zip(self.image_size, image.shape, strict=True))
        border = (right // 2, right - right // 2, down // 2, down - down // 2)
        padded = torch.nn.functional.pad(image, border).expand(self.channels, -1, -1).contiguous()
        return padded if self.labels is None else (padded, self.labels[index])

    def fingerprint(self) -> str:
        """A hash of all pixels and of the border."""
        return hashlib.sha256(self.images.numpy().tobytes() + repr(self.image_size).encode()).hexdigest()


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The unsigned bytes of an IDX file, compressed or not.

    Raises:
        ValueError: not such a file, other dimensions, or more or fewer bytes than it says.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}); fetch it again") from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{path} is no IDX file of unsigned bytes with {dimensions} dimensions; fetch it again")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} should hold {list(shape)} bytes; got {len(data) - start}: fetch it again")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())


def _find(folder: str | os.PathLike[str], name: str) -> Path:
    for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"{folder} holds neither {name} nor {name}.gz; set folder to where MNIST's files lie")
