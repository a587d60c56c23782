"""From data to the noise that makes it, and back (Song et al. 2021, sec. 5.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser, StatelessDenoiser
from ..diffusion import GaussianDiffusion
from ..samplers import Sampler, Walk, trajectory
from ..samplers.grids import Grid, grid_of_log_snrs, uniform_angles


@torch.no_grad()
def invert(
    diffusion: GaussianDiffusion,
    data: Tensor,
    *,
    steps: int = 200,
    sampler: str | Sampler = "heun",
    **condition: Any,
) -> Tensor:
    """The standard normal noise [batch, ...] that `decode` turns into the data.

    Args:
        diffusion: The model; it is asked without self-conditioning, which would not let the way
            back be one.
        data: [batch, ...] in the user's units.
        steps: Sampler steps, even in the angle of the probability flow.
        sampler: A sampler without noise or memory. The round trip of 'heun' is far closer than
            that of 'ddim'.
        condition: Values of the conditions, by name.

    Raises:
        ValueError: a sampler that draws noise; or those of `GaussianDiffusion.walk`.
    """
    data = data.to(diffusion.device)
    shape = (len(data), *diffusion.sample_shape)
    walk = _flow(diffusion, data.new_zeros(shape), steps, sampler, condition)
    x0 = diffusion.encode(data, condition)
    with diffusion.evaluating():
        x = walk_back(StatelessDenoiser(walk.fresh), x0, walk.grid, walk.sampler)
    return x / walk.grid.start.sigma


@torch.no_grad()
def decode(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    *,
    steps: int = 200,
    sampler: str | Sampler = "heun",
    **condition: Any,
) -> Tensor:
    """Data [batch, ...] in the user's units from standard normal noise [batch, ...].

    Undoes `invert`; arguments as for it.
    """
    walk = _flow(diffusion, noise, steps, sampler, condition)
    walk = replace(walk, denoise=StatelessDenoiser(walk.fresh))
    for snapshot in diffusion.trajectory(walk):
        last = snapshot
    return walk.decode(last.x, last.to)


def walk_back(denoise: Denoiser, x0: Tensor, grid: Grid, sampler: Sampler[Any]) -> Tensor:
    """Walks a grid backwards, from clean data to x at its noisiest level.

    Args:
        denoise: A function of x and the level alone: what it remembers on the way up is not there
            on the way down.
        x0: Clean data, [batch, ...]: it is taken to lie at the grid's last level, which has little
            noise but some.
        grid: Steps from noisy to clean, made with clean=False. Steps even in angle (see
            `uniform_angles`) serve best.
        sampler: A sampler without noise or memory. Its error on the way up adds to that on the way
            down: of first order in the step for DDIM, of second for Heun.

    Raises:
        ValueError: a sampler that draws noise, or a grid that ends without noise.
    """
    if grid.end.is_end:
        raise ValueError(
            "Expected a grid that ends with some noise, where inversion starts, got one to the "
            "clean end. Fix: make it with clean=False."
        )

    def no_noise(x: Tensor) -> Tensor:
        raise ValueError(
            f"Expected a sampler without noise for inversion, got {sampler}. Fix: 'heun' or 'ddim'."
        )

    backwards = [(to, now) for now, to in reversed(grid)]
    for snapshot in trajectory(sampler, denoise, x0 * grid.end.alpha, backwards, no_noise):
        x = snapshot.x
    return x


def _flow(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int,
    sampler: str | Sampler,
    condition: dict[str, Any],
) -> Walk:
    """The probability flow from noise to nearly clean data."""
    schedule = diffusion.schedule
    grid = grid_of_log_snrs(schedule, uniform_angles(schedule, steps), clean=False)
    return diffusion.walk(
        len(noise), sampler=sampler, grid=grid, noise=noise, clip_denoised=False, **condition
    )
