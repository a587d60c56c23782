"""The order of images that lie in shards: shuffled, computed rather than stored, and one shard after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from ...process.noise import mix
from .order import permute

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
        self.sizes = np.array([self.lengths[shards].sum() for shards in self.lanes])
        self.turns = lru_cache(3 * lanes)(self._turns)
        self.width, self.share = batch_size // lanes, batch_size // world
        self.slots = rank * self.share + np.arange(self.share)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        ahead = max(1, 1024 // self.share)  # computed together, which costs little more than one
        lanes, places = np.divmod(self.slots, self.width)
        for first in itertools.count(self.start, ahead):
            positions = (first + np.arange(ahead))[:, None] * self.width + places
            indices, epochs = self.draws(np.broadcast_to(lanes, positions.shape), positions)
            self.prefetch(self._now_and_next(np.unique(lanes).tolist(), (first + ahead) * self.width))
            for batch in zip(indices.tolist(), epochs.tolist(), strict=True):
                yield list(zip(*batch, strict=True))

    def draws(self, lanes: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What stands at these positions of these lanes: (indices, epochs)."""
        epochs, rests = np.divmod(positions, self.sizes[lanes])
        shards = np.empty_like(positions)
        for lane, epoch in np.unique(np.stack([lanes.ravel(), epochs.ravel()]), axis=1).T.tolist():
            here = (lanes == lane) & (epochs == epoch)
            order, starts = self.turns(lane, epoch)
            turns = np.searchsorted(starts, rests[here], side="right") - 1
            shards[here], rests[here] = order[turns], rests[here] - starts[turns]
        keys = mix(self.seed, _IMAGES, shards.astype(np.uint64), epochs.astype(np.uint64))
        return self.firsts[shards] + permute(rests, self.lengths[shards], keys).astype(np.int64), epochs

    def _turns(self, lane: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards of a lane in the order of this epoch, and the positions in it at which each begins."""
        shards = self.lanes[lane]
        places = permute(np.arange(len(shards)), len(shards), mix(self.seed, _SHARDS, lane, epoch))
        order = shards[places.astype(np.int64)]
        return order, np.cumsum(self.lengths[order]) - self.lengths[order]

    def _now_and_next(self, lanes: list[int], position: int) -> list[int]:
        """The shards that stand at this position of these lanes, and after them."""
        found = []
        for lane in lanes:
            epoch, rest = divmod(position, int(self.sizes[lane]))
            order, starts = self.turns(lane, epoch)
            turn = int(np.searchsorted(starts, rest, side="right"))
            following = order[turn] if turn < len(order) else self.turns(lane, epoch + 1)[0][0]
            found += [int(order[turn - 1]), int(following)]
        return found
