"""Choice between caching decoded images in memory, on disk, or not at all."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.utils import gather_object

from .cache import CachedImages, cache_folder, file_in_memory, file_on_disk
from .cache_file import ImageCache, cache_size
from .memory import free_memory

_MEMORY_FRACTION, _DISK_FRACTION = 0.25, 0.5  # largest fraction of free memory, free disk space


@contextmanager
def cached(
    dataset: Any, location: Literal["auto", "memory", "disk", "off"], accelerator: Accelerator
) -> Iterator[Any]:
    """Yields the dataset with a cache of decoded images, shared by all processes of a machine.

    Args:
        dataset: Any dataset; only one with `worth_caching` is cached.
        location: 'memory'; 'disk' (the cache folder, where later runs find the images); 'off'; or
            'auto'. 'auto' takes memory if the images need at most a quarter of it; otherwise disk
            if they need at most half of its free space; otherwise off, with a warning.
        accelerator: Accelerator of the run.

    Raises:
        OSError: the file cannot be made, and `location` is not 'auto'.
    """
    if location == "off" or not dataset.worth_caching:
        yield dataset
        return
    with ExitStack() as stack:
        path, failure = None, None
        if accelerator.is_local_main_process:
            try:
                path = _make_file(dataset, location, stack)
            except (OSError, ValueError) as error:
                failure = (
                    f"Expected room for a cache of decoded images, got an error ({error}). "
                    "Fix: set cache to memory or off."
                )
        files = (
            gather_object([(path, failure)]) if accelerator.num_processes > 1 else [(path, failure)]
        )
        for _, message in files:
            if message is not None:
                raise OSError(message)
        # the file of this machine's first process
        path, _ = files[accelerator.process_index - accelerator.local_process_index]
        yield (
            dataset
            if path is None
            else CachedImages(dataset, ImageCache(path, len(dataset), *_layout(dataset)))
        )


def _make_file(dataset: Any, location: str, stack: ExitStack) -> str | None:
    """Returns the path of a new or partly filled cache file, or None if no place has room."""
    size = cache_size(len(dataset), *_layout(dataset))
    if location == "memory" or (location == "auto" and size <= _MEMORY_FRACTION * free_memory()):
        return stack.enter_context(file_in_memory())
    try:
        if location == "auto" and size > _DISK_FRACTION * shutil.disk_usage(cache_folder()).free:
            raise OSError(f"too little free space in {cache_folder()}")
        return _make_file_on_disk(dataset)
    except (OSError, ValueError) as error:
        if location == "disk":
            raise
        warnings.warn(
            f"{len(dataset)} decoded images take {size / 1e9:.3g} GB, too much for the memory, "
            f"and cannot be cached on disk ({error}). Each epoch will decode them again.",
            stacklevel=2,
        )
        return None


def _make_file_on_disk(dataset: Any) -> str:
    """Reserves the whole cache file on disk and returns its path.

    Raises:
        OSError: no space left, or the folder cannot be written.
    """
    path = file_on_disk(dataset)
    try:
        ImageCache(path, len(dataset), *_layout(dataset)).reserve()
    except OSError:
        path.unlink(missing_ok=True)  # otherwise it would keep the disk full
        raise
    return str(path)


def _layout(dataset: Any) -> tuple[tuple[int, ...], int]:
    """Returns the shape of a row of the cache and the bits per channel."""
    return dataset.row_shape, dataset.bits
