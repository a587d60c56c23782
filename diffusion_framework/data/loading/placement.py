"""Where decoded images are kept, if anywhere."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.utils import gather_object

from .cache import CachedImages, ImageCache, cache_folder, cache_size, file_in_memory, file_on_disk
from .memory import free_memory

_SHARE_OF_MEMORY, _SHARE_OF_DISK = 0.25, 0.5  # of what is free


@contextmanager
def cached(dataset: Any, place: Literal["auto", "memory", "disk", "off"], accelerator: Accelerator) -> Iterator[Any]:
    """The data set, its images kept once they are decoded, for all processes of a machine and their data workers.

    Args:
        dataset: Any; only images that are worth it are kept.
        place: 'memory'; 'disk', in the cache folder, where the next run finds them; 'off'; or 'auto', which is memory
            if they take at most a quarter of what is free there, or else disk if at most half, or else off, with a
            warning.
        accelerator: Of the run.

    Raises:
        OSError: the file cannot be made, and place is not 'auto'.
    """
    if place == "off" or not dataset.worth_caching:
        yield dataset
        return
    with ExitStack() as stack:
        path, failure = None, None
        if accelerator.is_local_main_process:
            try:
                path = _make_file(dataset, place, stack)
            except (OSError, ValueError) as error:
                failure = f"decoded images cannot be kept: {error}; set cache to memory or off"
        files = gather_object([(path, failure)]) if accelerator.num_processes > 1 else [(path, failure)]
        for _, message in files:
            if message is not None:
                raise OSError(message)
        path, _ = files[accelerator.process_index - accelerator.local_process_index]  # that of this machine
        yield dataset if path is None else CachedImages(dataset, ImageCache(path, len(dataset), *_layout(dataset)))


def _make_file(dataset: Any, place: str, stack: ExitStack) -> str | None:
    """The path of a new file for the images, or of one that holds some; None where there is no room."""
    size = cache_size(len(dataset), *_layout(dataset))
    if place == "memory" or (place == "auto" and size <= _SHARE_OF_MEMORY * free_memory()):
        return stack.enter_context(file_in_memory())
    try:
        if place == "auto" and size > _SHARE_OF_DISK * shutil.disk_usage(cache_folder()).free:
            raise OSError(f"{cache_folder()} has too little room")
        return _make_file_on_disk(dataset)
    except (OSError, ValueError) as error:
        if place == "disk":
            raise
        warnings.warn(
            f"{len(dataset)} decoded images take {size / 1e9:.3g} GB, too much for the memory, and cannot be kept on "
            f"disk ({error}): each epoch will decode them anew",
            stacklevel=2,
        )
        return None


def _make_file_on_disk(dataset: Any) -> str:
    path = file_on_disk(dataset)
    try:
        ImageCache(path, len(dataset), *_layout(dataset)).reserve()
    except OSError:
        path.unlink(missing_ok=True)  # or it would fill the disk
        raise
    return str(path)


def _layout(dataset: Any) -> tuple[tuple[int, int, int], int]:
    """Shape and bits of each image."""
    return (dataset.channels, *dataset.image_size), dataset.bits
