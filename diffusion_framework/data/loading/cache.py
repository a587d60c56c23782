"""Cache of decoded images, in memory or on disk."""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...storage.config import to_config
from ..dataset import ImageDataset, TrainingDataset

_GPU_FRACTION = 0.25  # largest fraction of a GPU's free memory for images
_TRANSFER_SIZE = 1024  # images copied to a GPU at a time


class ImageCache:
    """File of decoded images of one shape, read and filled by any number of processes.

    Each image is stored with its label and a checksum. Images left incomplete by a killed process
    or a power failure therefore count as missing.

    Args:
        path: Path of the file; created if missing.
        count: Number of images.
        shape: (channels, height, width) of each image.
        bits: Bits per channel: 8 for uint8, 16 for uint16.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(
        self, path: str | os.PathLike[str], count: int, shape: tuple[int, int, int], bits: int = 8
    ) -> None:
        self.path, self.count, self.shape, self.bits = path, count, shape, bits
        size = cache_size(count, shape, bits)
        with open(path, "ab") as file:
            if file.tell() < size:
                file.truncate(size)  # sparse zeros take no disk space
        self._rows = np.memmap(path, row_type(shape, bits), "r+", shape=(count,))

    def __reduce__(self) -> tuple[Any, ...]:  # for spawned data workers
        return type(self), (self.path, self.count, self.shape, self.bits)

    def reserve(self) -> None:
        """Allocates the whole file, so that a full disk cannot break it later.

        Raises:
            OSError: no space left.
        """
        if hasattr(os, "posix_fallocate"):
            with open(self.path, "r+b") as file:  # some file systems refuse append mode
                os.posix_fallocate(file.fileno(), 0, cache_size(self.count, self.shape, self.bits))

    def size(self) -> int:
        """Returns the size of the file in bytes."""
        return self._rows.nbytes

    def full(self) -> bool:
        """Returns whether all images are cached."""
        return bool(self._rows["check"].all())

    def put(self, index: int, image: Tensor, label: int) -> None:
        """Stores an image [channels, height, width] and its label."""
        row = self._rows[index]
        row["image"], row["label"] = image.numpy(), label
        row["check"] = checksum(row["image"], row["label"])

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor, list[int]]:
        """Returns images [n, channels, height, width], labels [n], and positions of missing ones.

        Checksums are computed on the returned copy in each call, because another machine may write
        to a file on a network disk.
        """
        images, labels, checks = (self._rows[name][indices] for name in ("image", "label", "check"))
        intact = [
            check == checksum(*pair) for check, *pair in zip(checks, images, labels, strict=True)
        ]
        missing = [position for position, is_intact in enumerate(intact) if not is_intact]
        return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), missing


class CachedImages(TrainingDataset):
    """Images of another dataset, each decoded once.

    Args:
        images: Dataset of images that are the same in every epoch.
        cache: Cache for all its images.
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
        """Returns [images] or [images, labels], as [n, channels, height, width] and [n]."""
        images, labels, missing = self.cache.get(indices)
        for position in missing:
            index = int(indices[position])
            drawn = self.images.draw(index, 0)
            images[position], labels[position] = drawn if isinstance(drawn, tuple) else (drawn, 0)
            self.cache.put(index, images[position], int(labels[position]))
        return [images, labels] if self.images.class_names else [images]

    def fingerprint(self) -> str:
        return self.images.fingerprint()

    def resident(self, device: torch.device) -> "CachedImages | DecodedImages | None":
        """Returns a source of batches without data workers, or None if the cache is not yet full.

        For a GPU, all images move to its memory. If they take more than a quarter of its free
        memory, None is returned.
        """
        if not self.cache.full():
            return None
        if device.type != "cuda":
            return self
        room = _GPU_FRACTION * torch.cuda.mem_get_info(device)[0]
        return DecodedImages(self, device) if self.cache.size() <= room else None


class DecodedImages:
    """All images of a dataset, in the memory of a device.

    Args:
        dataset: Dataset with a full cache.
        device: Device to hold the images.
    """

    def __init__(self, dataset: CachedImages, device: torch.device) -> None:
        count = len(dataset)
        self.tensors = [
            first.new_empty(count, *first.shape[1:], device=device)
            for first in dataset.take(np.arange(1))
        ]
        for start in range(0, count, _TRANSFER_SIZE):
            indices = np.arange(start, min(start + _TRANSFER_SIZE, count))
            for tensor, part in zip(self.tensors, dataset.take(indices), strict=True):
                tensor[start : start + _TRANSFER_SIZE] = part

    def take(self, indices: np.ndarray) -> list[torch.Tensor]:
        """Returns [images] or [images, labels] on the device; see `CachedImages.take`."""
        rows = torch.from_numpy(indices).to(self.tensors[0].device, non_blocking=True)
        return [tensor[rows] for tensor in self.tensors]


def row_type(shape: tuple[int, int, int], bits: int = 8) -> np.dtype:
    """Returns the NumPy type of one row of a cache file: checksum, label, image."""
    return np.dtype([("check", "<u4"), ("label", "<i4"), ("image", f"<u{bits // 8}", shape)])


def checksum(image: np.ndarray, label: np.integer) -> int:
    """Returns the CRC-32 of an image with its label; never 0, the mark of a missing image."""
    return zlib.crc32(image.data, int(label) & 0xFFFFFFFF) or 1


def cache_size(count: int, shape: tuple[int, int, int], bits: int = 8) -> int:
    """Returns the size in bytes of a cache for `count` images [channels, height, width]."""
    return count * row_type(shape, bits).itemsize


@contextmanager
def file_in_memory() -> Iterator[str]:
    """Yields the path of an empty file in memory, which other processes can open."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("images")
        try:
            yield f"/proc/{os.getpid()}/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        # not NamedTemporaryFile, which Windows opens only once
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield str(Path(folder) / "images")


def cache_folder() -> Path:
    """Returns the folder for cached files, creating it if missing.

    It is $XDG_CACHE_HOME/diffusion_framework, or ~/.cache/diffusion_framework.

    Raises:
        OSError: the folder cannot be created.
        ValueError: the user has no home folder.
    """
    try:
        folder = (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion_framework"
        )
        folder.mkdir(parents=True, exist_ok=True)
    except RuntimeError as error:
        raise ValueError(
            "Expected a home folder for the cache, got none. Fix: set XDG_CACHE_HOME."
        ) from error
    except OSError as error:
        raise OSError(
            f"Expected a writable cache folder, got {error}. Fix: set XDG_CACHE_HOME."
        ) from error
    return folder


def file_on_disk(images: ImageDataset) -> Path:
    """Returns the path of the cache file of a dataset, and deletes its outdated cache files.

    Raises:
        OSError: the cache folder cannot be written.
        ValueError: the user has no home folder.
    """
    folder = cache_folder() / "images"
    folder.mkdir(exist_ok=True)
    identity = json.dumps([to_config(images), os.getcwd()], sort_keys=True)  # paths may be relative
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = folder / f"{key}-{images.version()[:16]}"
    for outdated in folder.glob(f"{key}-*"):
        if outdated != path:
            outdated.unlink(missing_ok=True)
    return path
