"""The path of a teacher in many steps, and the errors of single long steps along it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..process.level import Level, Prediction
from ..process.schedules import NoiseSchedule
from ..samplers import Sampler
from ..samplers.grids import Grid
from .paths import Paths


@dataclass(frozen=True)
class Teacher:
    """Levels of a path in many steps, and the inner products of what it passed.

    The vectors are x at each level, x at the clean end, and x0 at each level but the end. Samplers
    are linear in them, so that the error of any step follows from the inner products alone.

    Attributes:
        levels: Levels, the last clean.
        products: Mean inner products of the vectors, [2 n + 1, 2 n + 1] for n + 1 levels.
        spread: Standard deviation of the data at the ends.
    """

    levels: tuple[Level, ...]
    products: Tensor
    spread: float

    @classmethod
    def walk(cls, paths: Paths, sampler: Sampler, grid: Grid, most: int) -> tuple[Teacher, Tensor]:
        """Walks the paths in many steps.

        Args:
            paths: Paths.
            sampler: Sampler of the teacher, with one network call a step.
            grid: Grid of the teacher.
            most: Largest number of levels to keep, besides the end.

        Returns:
            The teacher, and its ends as of `Paths.ends`.
        """
        stride = math.ceil(len(grid) / most)
        kept = range(0, len(grid), stride)
        products, ends = torch.zeros(2 * len(kept) + 1, 2 * len(kept) + 1).double(), []
        for batch in paths.batches:
            at, clean = [batch.noise * grid.start.sigma], []
            for snapshot in paths.snapshots(batch, sampler, grid):
                if snapshot.index in kept:
                    clean.append(snapshot.x0.flatten())
                if snapshot.index + 1 in kept or snapshot.to.is_end:
                    at.append(snapshot.x)
            ends.append(at[-1].flatten(1))
            vectors = torch.stack([*(x.flatten() for x in at), *clean])
            products += (vectors @ vectors.T).double().cpu()
        found = torch.cat(ends)
        levels = (*(grid[index][0] for index in kept), grid.end)
        spread = float((found - found.mean(0)).square().mean().sqrt())
        return cls(levels, products / found.numel(), spread), found

    def costs(self, sampler: Sampler, schedule: NoiseSchedule) -> Tensor:
        """Returns the errors of steps, as `cheapest_levels` takes them.

        Both steps start on the teacher's path. Errors are RMS, as they would arrive at the end if
        the data were Gaussian.
        """
        n = len(self.levels) - 1
        costs = torch.full((n, n, n + 1), torch.inf, dtype=torch.float64)
        denoise = _OnPath(self.levels, schedule)
        for h in range(n):
            for i in range(h + 1, n + 1):
                to = self.levels[i]
                x, state = denoise.step(sampler, h, to, sampler.init(3))
                if h == 0:
                    costs[0, 0, i] = self._error(x, i)
                for j in range(i + 1, n):
                    x, _ = denoise.step(sampler, i, self.levels[j], state)
                    costs[h, i, j] = self._error(x, j)
                if i < n:  # the second step is the last one
                    _, state = denoise.step(sampler, h, to, sampler.init(2))
                    x, _ = denoise.step(sampler, i, self.levels[n], state)
                    costs[h, i, n] = self._error(x, n)
        return costs

    def _error(self, x: Tensor, level: int) -> float:
        """Returns the error of x, as factors of the vectors, against x of the path at a level."""
        off, at = x.clone(), self.levels[level]
        off[level] -= 1
        gain = self.spread / math.hypot(at.sigma, at.alpha * self.spread)
        return gain * math.sqrt(max(float(off @ self.products @ off), 0.0))


class _OnPath:
    """Denoiser that knows the estimates along the path; x is given as factors of the vectors."""

    def __init__(self, levels: tuple[Level, ...], schedule: NoiseSchedule) -> None:
        self.levels, self.schedule = levels, schedule
        self.unit = torch.eye(2 * len(levels) - 1, dtype=torch.float64)
        self.index = {level: index for index, level in enumerate(levels)}

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        return Prediction.from_x0(self.unit[len(self.levels) + self.index[at]], x, at)

    def step(self, sampler, level: int, to: Level, state):
        """Takes one step from x of the path at a level."""
        now, x = self.levels[level], self.unit[level].clone()
        return sampler.step(self, x, now, to, state, torch.zeros_like)
