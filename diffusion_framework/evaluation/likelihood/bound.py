"""The variational bound of a whole process, step by step."""

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
    """An upper bound on -log2 p(x0) of each image, and what it is made of, in bits per dimension,
    float64.

    Attributes:
        grid: The steps, from noisy to clean.
        prior: [batch]: how far the noisiest level is from pure noise.
        steps: [batch, steps]: the KL divergence of each step, and last the reconstruction.
    """

    grid: Grid
    prior: Tensor
    steps: Tensor

    @property
    def total(self) -> Tensor:
        """[batch]: the bound."""
        return self.prior + self.steps.sum(dim=1)

    @staticmethod
    def cat(bounds: Iterable[BoundTerms]) -> BoundTerms:
        """The bound of all images of several batches with the same grid."""
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
    """The bound on -log p(x0) of the process that walks the grid (Ho et al. 2020, eq. 5), each term
    from one noise.

    Args:
        denoise: A function of x and the level alone: an estimate that it remembers would tell it of
            x0.
        x0: Clean data in [-1, 1], [batch, ...].
        grid: Steps that join, to the clean end.
        noise: Gives the noise of one step after the other.
        variance: Of the reverse steps.
        bins: Equal steps of the data in [-1, 1]: 256 for 8-bit images, None for continuous data.
        progress: Show a progress bar.

    Raises:
        ValueError: steps that do not join or do not end clean, or a learned variance of a network
            without one.
    """
    if not grid or not grid.end.is_end:
        raise ValueError(
            "the bound needs a grid to the clean end; got one that stops before: make it with "
            "clean=True"
        )
    for (_, reached), (now, _) in itertools.pairwise(grid):
        if reached != now:
            raise ValueError(
                f"the bound needs steps that join; got one to t={reached.t:g}, the next from "
                f"t={now.t:g}: "
                "use a grid without time_difference"
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
