"""Hands batches from data workers to the training process, with or without shared memory."""

from __future__ import annotations

import errno
import io
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import collate as torch_collate
from torch.utils.data._utils.collate import default_collate_fn_map

_NO_ROOM = (errno.ENOSPC, errno.ENOMEM, errno.ENOENT, errno.EACCES, errno.EROFS, errno.ENOSYS)
_SHARED_MEMORY = Path("/dev/shm")
_FIX = (
    "Fix: give /dev/shm more room, such as docker run --shm-size=8g or --ipc=host, or set "
    "loading.num_workers to 0."
)


@dataclass(frozen=True)
class PickledBatch:
    """Batch that goes through a pipe.

    Args:
        content: Pickled batch.
        reason: Reason on one line.
    """

    content: bytes
    reason: str


def collate(samples: Sequence[Any]) -> Any:
    """Returns samples as a batch, as PyTorch's `default_collate` does, outside shared memory.

    In a data worker, `default_collate` stacks tensors in shared memory and fails without room.
    """
    return torch_collate(samples, collate_fn_map={**default_collate_fn_map, Tensor: _stack})


def _stack(tensors: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    return torch.stack(tuple(tensors))


def hand_over(batch: Any) -> Any:
    """Returns a batch with its tensors in shared memory; without room there, a `PickledBatch`.

    Without it, a data worker whose tensors find no room would send nothing, and training would
    wait for ever. Data workers call it.
    """
    try:
        _share(batch)
    except (RuntimeError, OSError) as error:
        content = io.BytesIO()
        torch.save(batch, content)  # plain pickles of uint16 tensors cannot be read
        return PickledBatch(content.getvalue(), " ".join(str(error).split()))
    return batch


def received(batches: Iterator[Any]) -> Iterator[Any]:
    """Yields the batches that `hand_over` sent; warns once of those without shared memory."""
    warned = False
    for batch in batches:
        if not isinstance(batch, PickledBatch):
            yield batch
            continue
        if not warned:
            warnings.warn(
                f"Shared memory has no room for a batch ({batch.reason}), so data workers send "
                f"batches through pipes, which is slower. {_FIX}",
                stacklevel=2,
            )
            warned = True
        yield torch.load(io.BytesIO(batch.content), weights_only=False)


def warn_of_no_workers(error: OSError) -> None:
    """Warns that no data workers can start, or raises an error that has another reason."""
    if error.errno not in _NO_ROOM:
        raise error
    warnings.warn(
        f"Shared memory has no room for data workers ({error.strerror}), so samples are loaded in "
        f"the training process, which is slower. {_FIX}",
        stacklevel=2,
    )


def _check_room(size: int) -> None:
    """Checks that shared memory has `size` bytes; older PyTorch kills the worker without them."""
    if _SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(_SHARED_MEMORY).free) < size:
        raise RuntimeError(f"unable to allocate shared memory of {size} bytes, {free} are free")


def _share(value: Any) -> None:
    """Moves the tensors of a nested batch to shared memory."""
    if isinstance(value, Tensor):
        _check_room(value.nbytes)
        value.share_memory_()
    elif isinstance(value, Mapping):
        for item in value.values():
            _share(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _share(item)
