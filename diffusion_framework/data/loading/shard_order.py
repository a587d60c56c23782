"""Shuffled order of images in shards, which reads few shards at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from ...process.noise import mix
from .order import permute

_MAX_LANES = 8
_SHARD_KEY, _IMAGE_KEY = range(2)  # first keys of the order of shards, and of images in a shard


class ShardedBatches(Sampler[list[tuple[int, int]]]):
    """Yields endless shuffled batches as lists of (index, epoch), from a few shards at a time.

    Shards are distributed over lanes, and each lane fills an equal, contiguous part of every batch.
    With 2 lanes, the first half of each batch comes from shards 0, 2, 4, ..., the second half from
    shards 1, 3, 5, .... In every epoch, a lane shuffles its shards, reads one after the other, and
    shuffles the images of each. Images in lanes with fewer images are drawn slightly more often.
    All processes follow the same lanes, and each takes its share of every batch.

    The number of lanes is the largest divisor of batch_size up to 8 and up to the number of shards.
    If the number of processes divides it, each process reads its own shards.

    Args:
        lengths: Number of images in each shard; indices run through all shards in order.
        batch_size: Images of one global batch, over all processes.
        seed: Seed of the order.
        start: Number of the first batch, to continue a stopped run.
        rank: Rank of this process.
        world: Number of processes; divides batch_size.
        prefetch: Function called regularly with the current and next shards of this process.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        prefetch: Callable[[Sequence[int]], Any] = lambda shards: None,
    ) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.seed, self.start, self.prefetch = seed, start, prefetch
        self.firsts = np.cumsum(self.lengths) - self.lengths
        lanes = max(n for n in range(1, min(_MAX_LANES, len(lengths)) + 1) if batch_size % n == 0)
        self.lanes = [np.arange(lane, len(lengths), lanes) for lane in range(lanes)]
        self.sizes = np.array([self.lengths[shards].sum() for shards in self.lanes])
        self.turns = lru_cache(3 * lanes)(self._turns)
        self.width, self.share = batch_size // lanes, batch_size // world
        self.slots = rank * self.share + np.arange(self.share)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        ahead = max(1, 1024 // self.share)  # batches computed at once
        lanes, offsets = np.divmod(self.slots, self.width)
        for first in itertools.count(self.start, ahead):
            positions = (first + np.arange(ahead))[:, None] * self.width + offsets
            indices, epochs = self.draws(np.broadcast_to(lanes, positions.shape), positions)
            self.prefetch(
                self._now_and_next(np.unique(lanes).tolist(), (first + ahead) * self.width)
            )
            for batch in zip(indices.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*batch, strict=True))

    def draws(self, lanes: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (indices, epochs) at positions of lanes, all arrays of one shape."""
        epochs, offsets = np.divmod(positions, self.sizes[lanes])
        shards = np.empty_like(positions)
        for lane, epoch in np.unique(np.stack([lanes.ravel(), epochs.ravel()]), axis=1).T.tolist():
            here = (lanes == lane) & (epochs == epoch)
            order, starts = self.turns(lane, epoch)
            turns = np.searchsorted(starts, offsets[here], side="right") - 1
            shards[here], offsets[here] = order[turns], offsets[here] - starts[turns]
        keys = mix(self.seed, _IMAGE_KEY, shards.astype(np.uint64), epochs.astype(np.uint64))
        shuffled = permute(offsets, self.lengths[shards], keys).astype(np.int64)
        return self.firsts[shards] + shuffled, epochs

    def _turns(self, lane: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a lane's shards in the order of an epoch, and the position where each starts."""
        shards = self.lanes[lane]
        shuffled = permute(
            np.arange(len(shards)), len(shards), mix(self.seed, _SHARD_KEY, lane, epoch)
        )
        order = shards[shuffled.astype(np.int64)]
        return order, np.cumsum(self.lengths[order]) - self.lengths[order]

    def _now_and_next(self, lanes: list[int], position: int) -> list[int]:
        """Returns the shards at a position of each lane, and the shards after them."""
        found = []
        for lane in lanes:
            epoch, offset = divmod(position, int(self.sizes[lane]))
            order, starts = self.turns(lane, epoch)
            turn = int(np.searchsorted(starts, offset, side="right"))
            following = order[turn] if turn < len(order) else self.turns(lane, epoch + 1)[0][0]
            found += [int(order[turn - 1]), int(following)]
        return found
