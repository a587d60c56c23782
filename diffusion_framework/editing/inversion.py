"""Inversion of sampling, from data to its noise and back (Song et al. 2021, sec. 5.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..conditions.base import as_tensor
from ..denoisers import Denoiser, StatelessDenoiser
from ..diffusion import GaussianDiffusion
from ..progress import progress
from ..samplers import Sampler, Walk, trajectory
from ..samplers.grids import Grid, grid_of_log_snrs, uniform_angles


@torch.no_grad()
def invert(
    diffusion: GaussianDiffusion,
    data: Tensor,
    *,
    steps: int = 40,
    sampler: str | Sampler = "heun",
    show_progress: bool = True,
    **condition: Any,
) -> Tensor:
    """Returns the standard normal noise [batch, ...] that `decode` maps to the data.

    The default takes 79 network calls. On the digits model, data in [0, 1] came back from the noise
    with an error of 0.0016 (root mean square), less than half a step of 8 bits; 20 steps gave
    0.0066, 100 steps 0.0002.

    Args:
        diffusion: Diffusion model. Its self-conditioning is off, since a model with memory cannot
            be inverted.
        data: Data in the user's units, [batch, ...].
        steps: Number of sampler steps, evenly spaced in the angle of the probability flow.
        sampler: Sampler without noise or memory. The round trip of 'heun' is far more accurate than
            that of 'ddim'.
        show_progress: Whether to show progress if the work takes longer than two seconds.
        condition: Values of the conditions by name.

    Raises:
        ValueError: If the sampler draws noise, or `GaussianDiffusion.walk` refuses an argument.
    """
    data = as_tensor(data, diffusion.device, "data")
    shape = (len(data), *diffusion.sample_shape)
    walk = _flow(diffusion, data.new_zeros(shape), steps, sampler, condition)
    x0 = diffusion.encode(data, condition)
    denoise = StatelessDenoiser(walk.fresh)
    with diffusion.evaluating():
        x = walk_back(denoise, x0, walk.grid, walk.sampler, show_progress=show_progress)
    return x / walk.grid.start.sigma


@torch.no_grad()
def decode(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    *,
    steps: int = 40,
    sampler: str | Sampler = "heun",
    show_progress: bool = True,
    **condition: Any,
) -> Tensor:
    """Returns the data of standard normal noise, as the inverse of `invert`.

    Args:
        diffusion: Diffusion model, without self-conditioning as in `invert`.
        noise: Standard normal noise, [batch, ...].
        steps: Number of sampler steps, as in `invert`.
        sampler: Sampler, as in `invert`.
        show_progress: Whether to show progress if the work takes longer than two seconds.
        condition: Values of the conditions by name.

    Returns:
        Data in the user's units, [batch, ...].
    """
    walk = _flow(diffusion, noise, steps, sampler, condition)
    walk = replace(walk, denoise=StatelessDenoiser(walk.fresh))
    snapshots, total = diffusion.trajectory(walk), len(walk.grid)
    for snapshot in progress(snapshots, total, "decoding", shown=show_progress):
        last = snapshot
    return walk.decode(last.x, last.to)


def walk_back(
    denoise: Denoiser, x0: Tensor, grid: Grid, sampler: Sampler[Any], *, show_progress: bool = False
) -> Tensor:
    """Walks a grid backwards, from clean data to x at the noisiest level.

    Args:
        denoise: Denoiser that depends on x and the level only. A memory, as of self-conditioning,
            would differ between the two directions.
        x0: Clean data, [batch, ...]. It stands for the data at the grid's last level, which has
            little noise.
        grid: Steps from noisy to clean, made with clean=False, preferably from `uniform_angles`.
        sampler: Sampler without noise or memory. Its errors in the two directions add up; they are
            of first order in the step size for DDIM and of second order for Heun.
        show_progress: Whether to show progress.

    Returns:
        Noised data x at the first level of the grid, [batch, ...].

    Raises:
        ValueError: If the sampler draws noise, or the grid ends without noise.
    """
    if grid.end.is_end:
        raise ValueError(
            "Expected a grid that ends with some noise, where inversion starts, got one that ends "
            "clean. Fix: make the grid with clean=False."
        )

    def no_noise(x: Tensor) -> Tensor:
        raise ValueError(
            f"Expected a sampler without noise for inversion, got {sampler}. "
            "Fix: use 'heun' or 'ddim'."
        )

    backwards = [(to, now) for now, to in reversed(grid)]
    snapshots = trajectory(sampler, denoise, x0 * grid.end.alpha, backwards, no_noise)
    for snapshot in progress(snapshots, len(grid), "inverting", shown=show_progress):
        x = snapshot.x
    return x


def _flow(
    diffusion: GaussianDiffusion,
    noise: Tensor,
    steps: int,
    sampler: str | Sampler,
    condition: dict[str, Any],
) -> Walk:
    """Returns the walk of the probability flow from noise to nearly clean data."""
    schedule = diffusion.schedule
    grid = grid_of_log_snrs(schedule, uniform_angles(schedule, steps), clean=False)
    return diffusion.walk(
        len(noise), sampler=sampler, grid=grid, noise=noise, clip_denoised=False, **condition
    )
