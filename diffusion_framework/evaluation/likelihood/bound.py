"""Variational bound of a whole process, and its terms."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...denoisers import Denoiser
from ...losses.variational import bound_term, prior_term
from ...process.level import Noise
from ...process.posterior import Variance
from ...progress import progress
from ...samplers.grids import Grid


@dataclass(frozen=True)
class BoundTerms:
    """Terms of an upper bound on -log2 p(x0) of each image.

    All terms are float64, in bits per dimension.

    Attributes:
        grid: Steps from noisy to clean, or groups of steps of which one was computed.
        prior: KL divergence of the noisiest level from pure noise, [batch].
        steps: KL divergence of each step, [batch, steps], or for a group that of the computed step
            times the number of steps. The last column is the reconstruction term.
    """

    grid: Grid
    prior: Tensor
    steps: Tensor

    @property
    def total(self) -> Tensor:
        """The bound, [batch]."""
        return self.prior + self.steps.sum(dim=1)

    @staticmethod
    def cat(bounds: Iterable[BoundTerms]) -> BoundTerms:
        """Concatenates the terms of several batches with the same grid."""
        parts = list(bounds)
        return BoundTerms(
            parts[0].grid, torch.cat([b.prior for b in parts]), torch.cat([b.steps for b in parts])
        )


@torch.no_grad()
def variational_bound(
    denoise: Denoiser,
    x0: Tensor,
    grid: Grid,
    noise: Noise,
    variance: Variance = "small",
    bins: int | None = 256,
    show_progress: bool = False,
    terms: int | None = None,
) -> BoundTerms:
    """Computes the bound on -log p(x0) of a process over a grid (Ho et al. 2020, eq. 5).

    Each term is estimated from one noise. With `terms`, steps form groups, short ones near the
    clean end where terms differ most, and the middle step of a group stands for all of them.

    Args:
        denoise: Denoiser that depends on x and the level only. The memory of another call, as of
            self-conditioning, would reveal x0.
        x0: Clean data in [-1, 1], [batch, ...].
        grid: Steps to the clean end, each of which starts where the last one ends.
        noise: Function that draws the noise of each step in turn.
        variance: Variance of the reverse steps.
        bins: Number of data values, evenly spaced over [-1, 1]: 256 for 8-bit images, None for
            continuous data.
        show_progress: Whether to show progress.
        terms: Largest number of terms to compute, at least 1; None computes all.

    Raises:
        ValueError: If `terms` is below 1, the steps do not join or do not end clean, or the
            variance is learned and the network has none.
    """
    if not grid or not grid.end.is_end:
        raise ValueError(
            "Expected a grid to the clean end for the bound, got one that stops before. "
            "Fix: make the grid with clean=True."
        )
    for (_, reached), (now, _) in itertools.pairwise(grid):
        if reached != now:
            raise ValueError(
                f"Expected steps that join for the bound, got one to t={reached.t:g} and the next "
                f"from t={now.t:g}. Fix: use a grid without time_difference."
            )
    groups = _groups(len(grid), len(grid) if terms is None else terms)
    computed = []
    for steps in progress(groups, len(groups), "bound", shown=show_progress):
        middle = steps[(len(steps) - 1) // 2]
        now, to = grid[middle]
        before = grid[max(middle - 1, 0)][0]
        x = now.alpha * x0 + now.sigma * noise(x0)
        term = bound_term(x0, x, denoise(x, now), now, to, variance, before, bins)
        computed.append(term.cpu().double() * len(steps))
    grouped = Grid((grid[steps[0]][0], grid[steps[-1]][1]) for steps in groups)
    prior = prior_term(x0, grid.start).cpu().double()
    return BoundTerms(grouped, prior, torch.stack(computed, dim=1))


def _groups(steps: int, count: int) -> list[range]:
    """Returns at most `count` groups of consecutive steps, which grow from the last step on.

    Groups have odd lengths, except perhaps the first one, so that each has a middle. The last step
    stays alone.
    """
    if count < 1:
        raise ValueError(f"Expected at least 1 of the terms, got {count}. Fix: leave terms at 100.")
    if count >= steps:
        return [range(i, i + 1) for i in range(steps)]
    if count == 1:
        return [range(steps)]
    fits, too_many = float(steps), 0.0  # growth of the groups
    while fits - too_many > 1e-3 * fits:
        growth = (fits + too_many) / 2
        if len(_grown(steps, growth)) <= count:
            fits = growth
        else:
            too_many = growth
    return _grown(steps, fits)


def _grown(steps: int, growth: float) -> list[range]:
    """Returns groups whose length is about growth * (steps to the end)^(3/4)."""
    groups = [range(steps - 1, steps)]
    while (left := groups[-1].start) > 0:
        length = int(growth * (steps - left) ** 0.75)
        length = min(max(1, length - (length % 2 == 0)), left)
        groups.append(range(left - length, left))
    return groups[::-1]
