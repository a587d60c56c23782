"""Decoded images, kept for the epochs after the first."""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_framework.data.dataset import ImageDataset, TrainingDataset
from diffusion_framework.storage.config import to_config

_SHARE_OF_GPU = 0.25  # of its free memory, that images may take
_AT_ONCE = 1024  # images on their way to a GPU


class ImageCache:
    """Room for decoded images of one shape in one file, which any number of processes read and fill.

    Each image comes with its label and a checksum, so that one that was only half written, by a process that was killed
    or a machine that lost power, counts as missing.

    Args:
        path: The file; it is made where it is missing.
        count: Number of images.
        shape: (channels, height, width) of each.
        bits: 8 for images of uint8, 16 for uint16.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], count: int, shape: tuple[int, int, int], bits: int = 8) -> None:
        self.path, self.count, self.shape, self.bits = path, count, shape, bits
        size = cache_size(count, shape, bits)
        with open(path, "ab") as file:
            if file.tell() < size:
                file.truncate(size)  # zeros, which take no room yet
        self._rows = np.memmap(path, row_type(shape, bits), "r+", shape=(count,))

    def __reduce__(self) -> tuple[Any, ...]:  # for data workers that are not forked
        return type(self), (self.path, self.count, self.shape, self.bits)

    def reserve(self) -> None:
        """Have the file take its whole room, so that the disk cannot become too full for it later.

        Raises:
            OSError: it is too full already.
        """
        if hasattr(os, "posix_fallocate"):
            with open(self.path, "r+b") as file:  # for appending, some file systems would refuse
                os.posix_fallocate(file.fileno(), 0, cache_size(self.count, self.shape, self.bits))

    def size(self) -> int:
        """Bytes of the file."""
        return self._rows.nbytes

    def full(self) -> bool:
        """Whether all images have been put there."""
        return bool(self._rows["check"].all())

    def put(self, index: int, image: Tensor, label: int) -> None:
        """Keep an image [channels, height, width] and its label."""
        row = self._rows[index]
        row["image"], row["label"] = image.numpy(), label
        row["check"] = checksum(row["image"], row["label"])

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor, list[int]]:
        """Images [number, channels, height, width], labels [number], and at which places of both an image is missing.

        What is checked is the copy: on a network's disk, another machine may have changed the file since the last time.
        """
        images, labels, checks = (self._rows[name][indices] for name in ("image", "label", "check"))
        whole = [check == checksum(*pair) for check, *pair in zip(checks, images, labels, strict=True)]
        missing = [place for place, there in enumerate(whole) if not there]
        return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), missing


class CachedImages(TrainingDataset):
    """Images of another data set, each decoded once.

    Args:
        images: The data set; its images are the same in every epoch.
        cache: Has room for them.
    """

    def __init__(self, images: ImageDataset, cache: ImageCache) -> None:
        self.images, self.cache = images, cache
        self.class_names, self.shard_lengths = images.class_names, images.shard_lengths
        self.prefetch = images.prefetch  # type: ignore[method-assign]

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, index: int, epoch: int) -> Any:
        self.check_index(index)
        images, *labels = self.take(np.array([index]))
        return (images[0], labels[0].item()) if labels else images[0]

    def take(self, indices: np.ndarray, epochs: np.ndarray | None = None) -> list[Tensor]:
        """The images [number, channels, height, width], and with labels these [number]."""
        images, labels, missing = self.cache.get(indices)
        for place in missing:
            index = int(indices[place])
            drawn = self.images.draw(index, 0)
            images[place], labels[place] = drawn if isinstance(drawn, tuple) else (drawn, 0)
            self.cache.put(index, images[place], int(labels[place]))
        return [images, labels] if self.images.class_names else [images]

    def fingerprint(self) -> str:
        return self.images.fingerprint()

    def resident(self, device: torch.device) -> "CachedImages | DecodedImages | None":
        """The cache once it is full; for a GPU the images on it, if a quarter of its free memory is enough."""
        if not self.cache.full():
            return None
        if device.type != "cuda":
            return self
        room = _SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]
        return DecodedImages(self, device) if self.cache.size() <= room else None


class DecodedImages:
    """All images of a data set, on a device.

    Args:
        dataset: Of the images.
        device: Where to keep them.
    """

    def __init__(self, dataset: CachedImages, device: torch.device) -> None:
        count = len(dataset)
        self.tensors = [one.new_empty(count, *one.shape[1:], device=device) for one in dataset.take(np.arange(1))]
        for start in range(0, count, _AT_ONCE):
            indices = np.arange(start, min(start + _AT_ONCE, count))
            for tensor, part in zip(self.tensors, dataset.take(indices), strict=True):
                tensor[start : start + _AT_ONCE] = part

    def take(self, indices: np.ndarray) -> list[torch.Tensor]:
        """As of `CachedImages`, on the device."""
        where = torch.from_numpy(indices).to(self.tensors[0].device, non_blocking=True)
        return [tensor[where] for tensor in self.tensors]


def row_type(shape: tuple[int, int, int], bits: int = 8) -> np.dtype:
    """How an image lies in a cache's file."""
    return np.dtype([("check", "<u4"), ("label", "<i4"), ("image", f"<u{bits // 8}", shape)])


def checksum(image: np.ndarray, label: np.integer) -> int:
    """Of an image with its label; never 0, which says that there is none."""
    return zlib.crc32(image.data, int(label) & 0xFFFFFFFF) or 1


def cache_size(count: int, shape: tuple[int, int, int], bits: int = 8) -> int:
    """Bytes of a cache for so many images [channels, height, width]."""
    return count * row_type(shape, bits).itemsize


@contextmanager
def file_in_memory() -> Iterator[str]:
    """The path of an empty file that lives in memory, and no longer than this process does."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("images")
        try:
            yield f"/proc/{os.getpid()}/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with NamedTemporaryFile() as file:
            yield file.name


def cache_folder() -> Path:
    """Where files that spare work stay between runs: below $XDG_CACHE_HOME, or ~/.cache. Made where it is missing.

    Raises:
        OSError: it cannot be made.
        ValueError: there is no home folder.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion_framework"
        folder.mkdir(parents=True, exist_ok=True)
    except RuntimeError as error:
        raise ValueError("there is no home folder for what is kept between runs; set XDG_CACHE_HOME") from error
    except OSError as error:
        raise OSError(f"{error}; set XDG_CACHE_HOME to a folder that can be written to") from error
    return folder


def file_on_disk(images: ImageDataset) -> Path:
    """The file of these images in the cache folder. What is left of them as they were before they changed is removed.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: there is no folder for it.
    """
    folder = cache_folder() / "images"
    folder.mkdir(exist_ok=True)
    which = json.dumps([to_config(images), os.getcwd()], sort_keys=True)  # where a relative folder lies
    settings = hashlib.sha256(which.encode()).hexdigest()[:16]
    path = folder / f"{settings}-{images.version()[:16]}"
    for outdated in folder.glob(f"{settings}-*"):
        if outdated != path:
            outdated.unlink(missing_ok=True)
    return path
