"""Which images make up which batch: a function of the seed and the position alone, so that nothing has to be saved."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ..noise import mix
from .permutation import permute
from .signals import outlive_signals


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """Endless shuffled batches as lists of (index, epoch); each epoch shuffles anew and batches run across its end.

    All processes walk one global sequence, of which each takes its share of every batch.

    Args:
        length: Number of images.
        batch_size: Images of one global batch, over all processes.
        seed: Of the order.
        start: Number of the first batch, to go on where a run stopped.
        rank: Of this process.
        world: Number of processes; divides batch_size.
    """

    def __init__(self, length: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.share = batch_size // world
        self.offset = rank * self.share

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        ahead = max(1, 1024 // self.share)  # computed together, which costs little more than one
        in_batch = np.arange(self.offset, self.offset + self.share)
        for first in itertools.count(self.start, ahead):
            draws = (first + np.arange(ahead))[:, None] * self.batch_size + in_batch
            epochs, positions = np.divmod(draws.astype(np.uint64), np.uint64(self.length))
            indices = permute(positions, self.length, mix(self.seed, epochs))
            for batch in zip(indices.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*batch, strict=True))


class _Draws(Dataset):
    """A dataset asked by (index, epoch), whether or not it tells epochs apart."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, epoch = key
        return self.dataset.draw(index, epoch) if hasattr(self.dataset, "draw") else self.dataset[index]

    def __getitems__(self, keys: list[tuple[int, int]]) -> Any:
        if hasattr(self.dataset, "take"):  # a whole batch at once
            return self.dataset.take(np.array([index for index, _ in keys]))
        return default_collate([self[key] for key in keys])


@contextmanager
def loaded_batches(
    dataset: Any, batches: ShuffledBatches, num_workers: int, pin_memory: bool
) -> Iterator[Iterator[Any]]:
    """An iterator of the batches, as they come from the dataset: images stay uint8 until they are on the device."""
    ended = multiprocessing.Event()
    loader = DataLoader(
        _Draws(dataset),
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=partial(outlive_signals, ended),
    )
    try:
        yield iter(loader)
    finally:
        ended.set()


def _as_it_is(batch: Any) -> Any:
    return batch


def to_device(batch: Any, device: torch.device, flip: torch.Generator | None) -> tuple[torch.Tensor, dict[str, Any]]:
    """A batch of the loader as images in [0, 1] on the device, and the conditions that came with them.

    Args:
        batch: Images [batch, channels, height, width], uint8 or floats in [0, 1], or other samples [batch, ...], or a
            pair of those and labels [batch], or a dictionary of conditions.
        device: Where to put them.
        flip: A generator on the device that decides which images are mirrored left to right; None mirrors none.
    """
    images, *rest = batch if isinstance(batch, list | tuple) else (batch,)
    condition = {} if not rest else _moved(rest[0] if isinstance(rest[0], Mapping) else {"labels": rest[0]}, device)
    images = images.to(device, non_blocking=True)
    if flip is not None and images.ndim == 4:
        mirrored = torch.rand(len(images), 1, 1, 1, device=device, generator=flip) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
    if images.dtype == torch.uint8:
        images = images.float() / 255
    return images, condition


def _moved(condition: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: _moved(value, device) if isinstance(value, Mapping) else value.to(device, non_blocking=True)
        for key, value in condition.items()
    }
