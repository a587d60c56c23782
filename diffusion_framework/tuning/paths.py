"""Paths of a model from fixed noise, on which solvers and grids are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Guided
from ..process.noise import sample_seeds
from ..samplers import Sampler, Walk
from ..samplers.grids import Grid
from ..sampling import DrawsSamples

Count = Callable[[int], Any]
"""Function that is told a number of network calls for one sample each, after they were made."""


@dataclass(frozen=True)
class Batch:
    """Samples that are walked together.

    Attributes:
        walk: Walk whose noise, conditions and guidance all walks of the batch take.
        noise: Standard normal noise of the start, [batch, ...].
    """

    walk: Walk
    noise: Tensor


@dataclass(frozen=True)
class Paths:
    """Fixed noise and conditions of a model.

    Attributes:
        model: Model that draws.
        batches: Batches of samples.
        count: Function that counts network calls.
    """

    model: DrawsSamples
    batches: Sequence[Batch]
    count: Count

    @classmethod
    def draw(
        cls,
        model: DrawsSamples,
        indices: range,
        *,
        seed: int,
        batch_size: int,
        guidance: Guided | None,
        condition: Callable[[range], Mapping[str, Any]],
        count: Count,
    ) -> Paths:
        """Draws the noise of samples.

        Args:
            model: Model that draws.
            indices: Indices of the samples; sample i has the noise of `sample(seed=...)`.
            seed: Seed of the noise.
            batch_size: Number of samples that are walked together.
            guidance: Guidance of the paths, or None.
            condition: Function that returns the conditions of some samples by name.
            count: Function that counts network calls.
        """
        batches = []
        for first in range(0, len(indices), batch_size):
            chosen = indices[first : first + batch_size]
            options: dict[str, Any] = {"seed": sample_seeds(seed, chosen), "guidance": guidance}
            walk = model.walk(len(chosen), **options, **condition(chosen))
            batches.append(Batch(walk, walk.start / walk.grid.start.sigma))
        return cls(model, batches, count)

    def first(self, count: int) -> Paths:
        """Returns the first batches that hold at least this many samples."""
        batches: list[Batch] = []
        for batch in self.batches:
            if sum(len(chosen.noise) for chosen in batches) < count:
                batches.append(batch)
        return replace(self, batches=batches)

    def ends(self, sampler: Sampler, grid: Grid) -> Tensor:
        """Returns where the paths end, as clean data [samples, numbers] in the network's range."""
        return torch.cat([self._end(batch, sampler, grid) for batch in self.batches])

    def _end(self, batch: Batch, sampler: Sampler, grid: Grid) -> Tensor:
        last = [*self.snapshots(batch, sampler, grid)][-1]
        return (last.x / last.to.alpha).flatten(1)

    def snapshots(self, batch: Batch, sampler: Sampler, grid: Grid):
        """Yields the snapshots of a batch, from its noise at the start of the grid."""
        start = batch.noise * grid.start.sigma
        parts: dict[str, Any] = {"sampler": sampler, "grid": grid, "start": start}
        walk = replace(batch.walk, denoise=batch.walk.fresh(), **parts)
        for snapshot in self.model.trajectory(walk):
            self.count(len(batch.noise))
            yield snapshot


def rms(difference: Tensor) -> float:
    """Returns the root mean square of all numbers."""
    return float(difference.double().square().mean().sqrt())
