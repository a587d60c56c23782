"""Which images make up which batch: a function of the seed and the position alone, so that nothing has to be saved."""

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
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ...process.noise import mix
from ...spaces.images import LARGEST
from .cache import CachedImages
from .order import permute
from .shard_order import ShardedBatches

_SHARE_OF_GPU = 0.25  # of its free memory, that images may take
_AT_ONCE = 1024  # images on their way to a GPU


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


Batches: TypeAlias = ShuffledBatches | ShardedBatches


def shuffled_batches(dataset: Any, batch_size: int, seed: int, start: int, rank: int, world: int) -> Batches:
    """`ShardedBatches` of a dataset that lies in shards, `ShuffledBatches` of another; arguments are as theirs."""
    where = batch_size, seed, start, rank, world
    if hasattr(dataset, "shard_lengths"):
        return ShardedBatches(dataset.shard_lengths, *where, dataset.prefetch)
    return ShuffledBatches(len(dataset), *where)


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
    dataset: Any,
    batches: Batches,
    num_workers: int,
    device: torch.device,
    on_worker_start: Callable[[Event, int], None] | None = None,
) -> Iterator[Iterator[Any]]:
    """Yields an iterator of the batches as the dataset gives them: images stay uint8 until they are on the device.

    When the cache of decoded images is full, batches come straight from it, without data workers. If they fit, the
    images move to the GPU.

    Args:
        dataset: Samples, each a function of (index, epoch).
        batches: Which samples make up which batch.
        num_workers: Data workers, processes of their own; 0 loads in this process.
        device: Where the batches go; a GPU gets them from pinned memory.
        on_worker_start: Called in each data worker with an event, set when the loading ends, and the worker's number.
    """
    ended = multiprocessing.Event()
    loader = DataLoader(
        _Draws(dataset),
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=None if on_worker_start is None else partial(on_worker_start, ended),
    )
    try:
        if isinstance(dataset, CachedImages):
            yield _until_decoded(iter(loader), dataset, batches, device)
        else:
            yield iter(loader)
    finally:
        ended.set()


def _until_decoded(
    loaded: Iterator[Any], dataset: CachedImages, batches: Batches, device: torch.device
) -> Iterator[Any]:
    """The loaded batches until the cache is full, and then those from there."""
    epoch = -(-len(dataset) // batches.share)
    decoded, taken = None, 0
    while decoded is None:
        yield from itertools.islice(loaded, epoch)
        taken += epoch
        decoded = _all_decoded(dataset, device)
    del loaded  # and with it the data workers
    batches.start += taken
    for keys in batches:
        yield decoded.take(np.array([index for index, _ in keys]))


def _all_decoded(dataset: CachedImages, device: torch.device) -> CachedImages | DecodedImages | None:
    """What gives all images without data workers; None if not all are there yet, or a GPU has no room for them."""
    if not dataset.cache.full():
        return None
    if device.type != "cuda":
        return dataset
    room = _SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]
    return DecodedImages(dataset, device) if dataset.cache.size() <= room else None


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
    if images.dtype in LARGEST:
        images = images.float() / LARGEST[images.dtype]
    return images, condition


def _moved(condition: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: _moved(value, device) if isinstance(value, Mapping) else value.to(device, non_blocking=True)
        for key, value in condition.items()
    }
