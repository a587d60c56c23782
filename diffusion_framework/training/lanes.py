"""The order of images that lie in shards: shuffled, computed rather than stored, and one shard after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from ..noise import mix
from .permutation import permute

_LANES = 8
_SHARDS, _IMAGES = range(2)  # what a key is for


class ShardedBatches(Sampler[list[tuple[int, int]]]):
    """Endless shuffled batches as lists of (index, epoch), from a few shards at a time.

    Shards go in turn to the lanes, the slots of a batch in equal runs: with 2 lanes, the first half of each batch comes
    from shards 0, 2, 4, ... and the other one from 1, 3, 5, .... A lane shuffles its shards anew in each of its epochs,
    reads one after the other, and shuffles the images of each. Images of lanes with fewer of them come a little more
    often. All processes walk the same lanes, of which each takes its share of every batch.

    There are as many lanes as can be, up to 8: the number divides batch_size and is not above that of the shards. With
    a number of processes that divides it, each process reads shards of its own.

    Args:
        lengths: How many images are in each shard; images are numbered through all of them.
        batch_size: Images of one global batch, over all processes.
        seed: Of the order.
        start: Number of the first batch, to go on where a run stopped.
        rank: Of this process.
        world: Number of processes; divides batch_size.
        prefetch: Told from time to time which shards this process reads now and next.
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
        self.lengths, self.seed, self.start, self.prefetch = np.asarray(lengths, np.int64), seed, start, prefetch
        self.firsts = np.cumsum(self.lengths) - self.lengths
        lanes = max(n for n in range(1, min(_LANES, len(lengths)) + 1) if batch_size % n == 0)
        self.lanes = [np.arange(lane, len(lengths), lanes) for lane in range(lanes)]
        self.width, self.share = batch_size // lanes, batch_size // world
        self.slots = rank * self.share + np.arange(self.share)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        ahead = max(1, 1024 // self.share)  # computed together, which costs little more than one
        lanes, places = np.divmod(self.slots, self.width)
        for first in itertools.count(self.start, ahead):
            positions = (first + np.arange(ahead))[:, None] * self.width + places
            self.prefetch(self._now_and_next(np.unique(lanes).tolist(), (first + ahead) * self.width))
            indices, epochs = np.empty_like(positions), np.empty_like(positions)
            for lane in np.unique(lanes).tolist():
                indices[:, lanes == lane], epochs[:, lanes == lane] = self.draws(lane, positions[:, lanes == lane])
            for batch in zip(indices.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*batch, strict=True))

    def draws(self, lane: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What stands at these positions of a lane: (indices, epochs)."""
        epochs, rests = np.divmod(positions, self.lengths[self.lanes[lane]].sum())
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            order = self.shards(lane, epoch)
            ends = np.cumsum(self.lengths[order])
            turns = np.where(epochs == epoch, np.searchsorted(ends, rests, side="right"), -1)
            for turn in np.unique(turns[turns >= 0]).tolist():
                shard, here = int(order[turn]), turns == turn
                length = int(self.lengths[shard])
                within = permute(rests[here] - (ends[turn] - length), length, mix(self.seed, _IMAGES, shard, epoch))
                indices[here] = self.firsts[shard] + within.astype(np.int64)
        return indices, epochs

    def shards(self, lane: int, epoch: int) -> np.ndarray:
        """The shards of a lane in the order of this epoch."""
        shards = self.lanes[lane]
        order = permute(np.arange(len(shards)), len(shards), mix(self.seed, _SHARDS, lane, epoch))
        return shards[order.astype(np.int64)]

    def _now_and_next(self, lanes: list[int], position: int) -> list[int]:
        """The shards that stand at this position of these lanes, and after them."""
        found = []
        for lane in lanes:
            epoch, rest = divmod(position, int(self.lengths[self.lanes[lane]].sum()))
            order = self.shards(lane, epoch)
            turn = int(np.searchsorted(np.cumsum(self.lengths[order]), rest, side="right"))
            following = order[turn + 1] if turn + 1 < len(order) else self.shards(lane, epoch + 1)[0]
            found += [int(order[turn]), int(following)]
        return found
