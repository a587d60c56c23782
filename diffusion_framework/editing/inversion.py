"""From images to the noise that makes them, and between two images (Song et al. 2021, sec. 5.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .denoiser import Denoiser
from .grids import Grid
from .samplers import Sampler, trajectory


def invert(denoise: Denoiser, x0: Tensor, grid: Grid, sampler: Sampler[Any]) -> Tensor:
    """Walk a grid backwards, from clean data to x at its noisiest level.

    Args:
        denoise: A function of x and the level alone: what it remembers on the way up is not there on the way down.
        x0: Clean data, [batch, ...]: it is taken to lie at the grid's last level, which has little noise but some.
        grid: Steps from noisy to clean, made with clean=False; even in angle (see `uniform_angles`) they serve best.
        sampler: One without noise or memory, as Heun and DDIM. Its error on the way up adds to that on the way down: of
            first order in the step for DDIM, of second for Heun.

    Raises:
        ValueError: a sampler that draws noise, or a grid that ends without noise.
    """
    if grid[-1][1].is_end:
        raise ValueError("inversion starts where there is some noise; got a grid to the clean end: make it clean=False")

    def no_noise(x: Tensor) -> Tensor:
        raise ValueError(f"inversion needs a sampler without noise; got {sampler}: use Heun() or DDIM()")

    backwards = [(to, now) for now, to in reversed(grid)]
    for snapshot in trajectory(sampler, denoise, x0 * grid[-1][1].alpha, backwards, no_noise):
        x = snapshot.x
    return x


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point at `share` of the way from first to second along a great circle, sample by sample, [batch, ...].

    Between two noises, those are noises again: a straight line would pass through smaller ones.
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine).clamp(min=1e-4)  # of equal noises, a straight line's
    point = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    return point.reshape(first.shape)
