"""Shuffled batches, computed from the seed and the position alone, and their loading."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ...process.noise import mix
from ..dataset import TrainingDataset
from .handover import hand_over, received, warn_of_no_workers
from .order import permute
from .shard_order import ShardedBatches


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """Yields endless shuffled batches as lists of (index, epoch).

    Each epoch has its own order, and batches run across the end of an epoch. All processes follow
    one global sequence, and each takes its share of every batch. The order is a function of the
    arguments, so a checkpoint needs only the number of the next batch.

    Args:
        length: Number of samples.
        batch_size: Samples of one global batch, over all processes.
        seed: Seed of the order.
        start: Number of the first batch, to continue a stopped run.
        rank: Rank of this process.
        world: Number of processes; divides batch_size.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.share = batch_size // world
        self.offset = rank * self.share

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        ahead = max(1, 1024 // self.share)  # batches computed at once
        in_batch = np.arange(self.offset, self.offset + self.share)
        for first in itertools.count(self.start, ahead):
            draws = (first + np.arange(ahead))[:, None] * self.batch_size + in_batch
            epochs, positions = np.divmod(draws.astype(np.uint64), np.uint64(self.length))
            indices = permute(positions, self.length, mix(self.seed, epochs))
            for batch in zip(indices.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*batch, strict=True))


Batches: TypeAlias = ShuffledBatches | ShardedBatches


def shuffled_batches(
    dataset: TrainingDataset, batch_size: int, seed: int, start: int, rank: int, world: int
) -> Batches:
    """Returns `ShardedBatches` for a dataset of shards, otherwise `ShuffledBatches`.

    Args:
        dataset: Dataset to draw from.
        batch_size: Samples of one global batch, over all processes.
        seed: Seed of the order.
        start: Number of the first batch.
        rank: Rank of this process.
        world: Number of processes; divides batch_size.
    """
    options = batch_size, seed, start, rank, world
    if dataset.shard_lengths is not None:
        return ShardedBatches(dataset.shard_lengths, *options, dataset.prefetch)
    return ShuffledBatches(len(dataset), *options)


class _BatchDataset(Dataset):
    """Dataset from which a `DataLoader` takes whole batches by a list of (index, epoch)."""

    def __init__(self, dataset: TrainingDataset) -> None:
        self.dataset = dataset

    def __getitems__(self, keys: list[tuple[int, int]]) -> Any:
        return self.dataset.take(*np.array(keys).T)


@contextmanager
def loaded_batches(
    dataset: TrainingDataset,
    batches: Batches,
    num_workers: int,
    device: torch.device,
    on_worker_start: Callable[[Event, int], None] | None = None,
) -> Iterator[Iterator[Any]]:
    """Yields an iterator over the batches, as `TrainingDataset.take` returns them.

    Once the dataset has a resident source, such as a full cache of decoded images, batches come
    straight from it and the data workers end. See `TrainingDataset.resident`. Without room in
    /dev/shm, workers send batches through pipes, or this process loads them, with a warning.

    Args:
        dataset: Dataset to load from.
        batches: Order of the batches.
        num_workers: Number of data workers (processes); 0 loads in this process.
        device: Device of the training; batches for a GPU are in pinned memory.
        on_worker_start: Function that each data worker calls first, with its number and an event
            that is set when loading ends: `on_worker_start(event, number)`.
    """
    ended, loaded = None, None
    make = partial(
        DataLoader[Any],
        _BatchDataset(dataset),
        batch_sampler=batches,
        pin_memory=device.type == "cuda",
    )
    if num_workers:
        try:
            ended = multiprocessing.Event()
            start = None if on_worker_start is None else partial(on_worker_start, ended)
            made = make(num_workers=num_workers, worker_init_fn=start, collate_fn=hand_over)
            loaded = received(iter(made))
        except OSError as error:
            warn_of_no_workers(error)
    if loaded is None:
        loaded = iter(make(collate_fn=_no_collate))
    loaded = _until_resident(loaded, dataset, batches, device)  # which alone refers to the workers
    try:
        yield loaded
    finally:
        if ended is not None:
            ended.set()


def _until_resident(
    loaded: Iterator[Any], dataset: TrainingDataset, batches: Batches, device: torch.device
) -> Iterator[Any]:
    """Yields loaded batches, and batches of the resident source once an epoch ends with one."""
    epoch = -(-len(dataset) // batches.share)
    resident, taken = None, 0
    while resident is None:
        yield from itertools.islice(loaded, epoch)
        taken += epoch
        resident = dataset.resident(device)
    del loaded  # ends the data workers
    batches.start += taken
    for keys in batches:
        yield resident.take(np.array([index for index, _ in keys]))


def _no_collate(batch: Any) -> Any:
    """Returns the batch unchanged, because `take` has collated it."""
    return batch


def to_device(batch: Any, device: torch.device) -> tuple[torch.Tensor, dict[str, Any]]:
    """Moves a batch to a device.

    Args:
        batch: Data [batch, ...], or a pair of data and labels [batch] or a dictionary of
            conditions.
        device: Device to move to.

    Returns:
        Data and a dictionary of conditions; labels have the key "labels", and a mask is boolean.

    Raises:
        ValueError: a mask with other values than True and False, or 1 and 0.
    """
    data, *rest = batch if isinstance(batch, list | tuple) else (batch,)
    condition: Any = rest[0] if rest else {}
    if not isinstance(condition, Mapping):
        condition = {"labels": condition}
    if "mask" in condition:
        condition = {**condition, "mask": _as_mask(condition["mask"])}
    return data.to(device, non_blocking=True), _move(condition, device)


def _as_mask(mask: Any) -> torch.Tensor:
    """Returns a mask of 1 and 0 of any type as a boolean one."""
    if isinstance(mask, torch.Tensor):
        if mask.dtype == torch.bool:
            return mask
        if bool(((mask == 0) | (mask == 1)).all()):
            return mask.bool()
        got = f"values from {float(mask.min()):g} to {float(mask.max()):g}"
    else:
        got = type(mask).__name__
    raise ValueError(
        f"Expected a mask of True and False, or 1 and 0, got {got}. "
        "Fix: compare its values, such as mask > 127."
    )


def _move(value: Any, device: torch.device) -> Any:
    """Moves a tensor, or the tensors in a nested dictionary; returns other values unchanged."""
    if isinstance(value, Mapping):
        return {key: _move(item, device) for key, item in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
