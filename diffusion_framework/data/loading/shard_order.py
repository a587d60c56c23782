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

    Each epoch shuffles the shards and the images of each shard, and lays them out in one row. The
    row is cut into lanes of equal length, up to one image, which are read side by side: each lane
    fills an equal, contiguous part of every batch. A lane reads its shards one after the other. The
    images of a shard on a cut go to two lanes. Every epoch has each image exactly once, whatever
    the lengths of the shards: after any batch, no image was drawn twice more than another.

    All processes follow the same lanes, and each takes its share of every batch. The number of
    lanes is the largest divisor of batch_size up to 8 and up to the number of shards. If the number
    of processes divides it, the processes read different shards, except for those on a cut.

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
        self.firsts, self.count = np.cumsum(self.lengths) - self.lengths, int(self.lengths.sum())
        most = min(_MAX_LANES, len(lengths))
        self.lanes = max(n for n in range(1, most + 1) if batch_size % n == 0)
        self.row = lru_cache(4)(self._row)
        self.width, self.share = batch_size // self.lanes, batch_size // world
        self.slots = rank * self.share + np.arange(self.share)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        ahead = max(1, 1024 // self.share)  # batches computed at once
        lanes, offsets = np.divmod(self.slots, self.width)
        for first in itertools.count(self.start, ahead):
            positions = (first + np.arange(ahead))[:, None] * self.width + offsets
            indices, epochs = self.draws(np.broadcast_to(lanes, positions.shape), positions)
            following = (first + ahead) * self.width
            self.prefetch([s for n in np.unique(lanes) for s in self._now_and_next(n, following)])
            for batch in zip(indices.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*batch, strict=True))

    def draws(self, lanes: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (indices, epochs) at positions of lanes, all arrays of one shape."""
        epochs, in_row, _ = self._in_row(lanes, positions)
        shards = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            order, starts = self.row(epoch)
            turns = np.searchsorted(starts, in_row[here], side="right") - 1
            shards[here], in_row[here] = order[turns], in_row[here] - starts[turns]
        keys = mix(self.seed, _IMAGE_KEY, shards.astype(np.uint64), epochs.astype(np.uint64))
        shuffled = permute(in_row, self.lengths[shards], keys).astype(np.int64)
        return self.firsts[shards] + shuffled, epochs

    def _in_row(self, lanes: Any, positions: Any) -> tuple[Any, Any, Any]:
        """Returns the epoch at positions of lanes, the place in its row, and the end of the lane.

        In e epochs, lane l draws (e * count + l) // lanes images: equally many up to one, and
        e * count in all lanes together (Hermite's identity).
        """
        epochs = ((positions + 1) * self.lanes - 1 - lanes) // self.count
        before, after = epochs * self.count, (epochs + 1) * self.count
        starts = self._drawn_by_first(lanes, after) - self._drawn_by_first(lanes, before)
        ends = self._drawn_by_first(lanes + 1, after) - self._drawn_by_first(lanes + 1, before)
        return epochs, starts + positions - (before + lanes) // self.lanes, ends

    def _drawn_by_first(self, lanes: Any, images: Any) -> Any:
        """Returns the sum of (images + l) // self.lanes over the first `lanes` lanes l."""
        quotient, rest = np.divmod(images, self.lanes)
        return lanes * quotient + np.maximum(0, lanes + rest - self.lanes)

    def _row(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shards in the order of an epoch, and the place in the row of each start."""
        shards = np.arange(len(self.lengths))
        order = permute(shards, len(shards), mix(self.seed, _SHARD_KEY, epoch)).astype(np.int64)
        return order, np.cumsum(self.lengths[order]) - self.lengths[order]

    def _now_and_next(self, lane: int, position: int) -> list[int]:
        """Returns the shard at a position of a lane, and the lane's shard after it."""
        epoch, in_row, end = map(int, self._in_row(lane, position))
        order, starts = self.row(epoch)
        turn = int(np.searchsorted(starts, in_row, side="right"))
        now = int(order[turn - 1])
        if turn < len(order) and starts[turn] < end:
            return [now, int(order[turn])]
        _, in_row, _ = map(int, self._in_row(lane, position + end - in_row))  # in the next epoch
        order, starts = self.row(epoch + 1)
        return [now, int(order[np.searchsorted(starts, in_row, side="right") - 1])]
