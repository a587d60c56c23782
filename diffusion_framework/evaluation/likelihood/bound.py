"""Variational bound of a whole process, and its terms."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...denoisers import Denoiser
from ...losses.variational import bound_term, prior_term
from ...process.level import Noise
from ...process.posterior import Variance
from ...samplers.grids import Grid


@dataclass(frozen=True)
class BoundTerms:
    """Terms of an upper bound on -log2 p(x0) of each image.

    All terms are float64, in bits per dimension.

    Attributes:
        grid: Steps from noisy to clean.
        prior: KL divergence of the noisiest level from pure noise, [batch].
        steps: KL divergence of each step, [batch, steps]. The last column is the reconstruction
            term.
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
    progress: bool = False,
) -> BoundTerms:
    """Computes the bound on -log p(x0) of a process over a grid (Ho et al. 2020, eq. 5).

    Each term is estimated from one noise.

    Args:
        denoise: Denoiser that depends on x and the level only. The memory of another call, as of
            self-conditioning, would reveal x0.
        x0: Clean data in [-1, 1], [batch, ...].
        grid: Steps to the clean end, each of which starts where the last one ends.
        noise: Function that draws the noise of each step in turn.
        variance: Variance of the reverse steps.
        bins: Number of data values, evenly spaced over [-1, 1]: 256 for 8-bit images, None for
            continuous data.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If the steps do not join or do not end clean, or the variance is learned and the
            network has none.
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
    befores = [grid.start, *(now for now, _ in grid[:-1])]
    terms = []
    for before, (now, to) in zip(
        befores, tqdm(grid, desc="bound", disable=not progress), strict=True
    ):
        x = now.alpha * x0 + now.sigma * noise(x0)
        terms.append(
            bound_term(x0, x, denoise(x, now), now, to, variance, before, bins).cpu().double()
        )
    return BoundTerms(grid, prior_term(x0, grid.start).cpu().double(), torch.stack(terms, dim=1))
