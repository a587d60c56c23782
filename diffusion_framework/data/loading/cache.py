"""Cache of decoded images, in memory or on disk."""

import hashlib
import json
import os
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
from .cache_file import ImageCache
from .own_files import ForeignFileError, create_own, open_own

_GPU_FRACTION = 0.25  # largest fraction of a GPU's free memory for images
_TRANSFER_SIZE = 1024  # images copied to a GPU at a time


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
        pixels, numbers = self.rows(np.array([index]))
        return self.images.from_row(pixels[0], int(numbers))

    def take(self, indices: np.ndarray, epochs: np.ndarray | None = None) -> list[Any]:
        """Returns [images], or [images, labels], or [images, conditions by name]."""
        return self.images.from_rows(*self.rows(indices))

    def rows(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns pixels and numbers; see `ImageDataset.row`. Missing ones are decoded and kept."""
        pixels, numbers, missing = self.cache.get(indices)
        for position in missing:
            index = int(indices[position])
            pixels[position], numbers[position] = self.images.row(index)
            self.cache.put(index, pixels[position], int(numbers[position]))
        return pixels, numbers

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
        first, numbers = dataset.rows(np.arange(1))
        self.images = dataset.images
        self.pixels = first.new_empty(count, *first.shape[1:], device=device)
        self.numbers = numbers.new_empty(count)
        for start in range(0, count, _TRANSFER_SIZE):
            indices = np.arange(start, min(start + _TRANSFER_SIZE, count))
            part = slice(start, start + _TRANSFER_SIZE)
            self.pixels[part], self.numbers[part] = dataset.rows(indices)

    def take(self, indices: np.ndarray) -> list[Any]:
        """Returns a batch, with its images on the device; see `CachedImages.take`."""
        rows = torch.from_numpy(indices)
        pixels = self.pixels[rows.to(self.pixels.device, non_blocking=True)]
        return self.images.from_rows(pixels, self.numbers[rows])


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

    A link, or a file that others own or may write to, is replaced by an empty file.

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
    try:
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    except ForeignFileError:
        descriptor = create_own(path)
    os.close(descriptor)
    return path
