"""How likely a model finds data, in bits per dimension."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from ...denoisers import StatelessDenoiser
from ...diffusion import GaussianDiffusion
from ...process.posterior import Variance
from ...samplers import Walk
from ...samplers.grids import Grid
from .bound import BoundTerms, variational_bound
from .flow import Trace, flow_bits


def bits_per_dim(
    diffusion: GaussianDiffusion,
    data: Tensor,
    *,
    variance: Variance | None = None,
    show_progress: bool = False,
    **walk_options: Any,
) -> BoundTerms:
    """How likely the model finds data, by the variational bound (see `variational_bound`).

    Args:
        diffusion: The model; a network with self-conditioning is asked without it.
        data: [batch, ...] in the user's units, of a space with bins: images of 8 bits in steps of
            1 / 255.
        variance: Variance of the reverse steps: 'small', 'large', or 'learned' or 'learned_range'
            if the network learned it; None as in training (see `Loss.variance`).
        show_progress: Whether to show a progress bar.
        walk_options: As for `GaussianDiffusion.walk`, without time_difference: steps or a grid to
            the clean end, seed, clip_denoised; and values of the conditions by name.

    Returns:
        The bound in bits per dimension; `.total` is [batch].

    Raises:
        ValueError: a space without bins; or those of `walk` and of `variational_bound`.
    """
    walk, x0, bins = _prepared(diffusion, data, walk_options)
    grid = walk.grid
    if walk_options.get("grid") is None:  # steps must join, and time_difference pulls them apart
        levels = [*(now for now, _ in grid), grid.end]
        grid = Grid(itertools.pairwise(levels))
    denoise, variance = StatelessDenoiser(walk.fresh), variance or diffusion.loss.variance
    with diffusion.evaluating():
        return variational_bound(denoise, x0, grid, walk.noise, variance, bins, show_progress)


def flow_bits_per_dim(
    diffusion: GaussianDiffusion,
    data: Tensor,
    *,
    trace: Trace = "rademacher",
    tolerance: float = 1e-5,
    sigma_min: float = 1e-3,
    **walk_options: Any,
) -> Tensor:
    """How likely the probability flow finds data; [batch], in bits per dimension.

    Each datum is spread evenly over its bin.

    Args:
        diffusion: As for `bits_per_dim`, like data.
        data: As for `bits_per_dim`.
        trace: As for `flow_bits`, like tolerance and sigma_min.
        walk_options: seed, and values of the conditions by name.

    Raises:
        ValueError: a space without bins, or an ODE that cannot be solved to this tolerance.
    """
    options = {"steps": 1, "clip_denoised": False, **walk_options}
    walk, x0, bins = _prepared(diffusion, data, options)
    denoise = StatelessDenoiser(walk.fresh)
    with diffusion.evaluating():
        return flow_bits(
            denoise,
            x0,
            walk.noise,
            trace=trace,
            tolerance=tolerance,
            sigma_min=sigma_min,
            bins=bins,
        )


def _prepared(
    diffusion: GaussianDiffusion, data: Tensor, walk_options: dict[str, Any]
) -> tuple[Walk, Tensor, int]:
    """A walk that has drawn no noise yet, the encoded data, and the bins of the space."""
    if (bins := diffusion.space.bins) is None:
        raise ValueError(
            f"Expected a space with bins for bits per dimension, got "
            f"{type(diffusion.space).__name__} of "
            "continuous data. Fix: ImageSpace(bins=256), if the data has as many values."
        )
    data = data.to(diffusion.device)
    nothing = torch.zeros(len(data), *diffusion.sample_shape, device=data.device)
    walk = diffusion.walk(len(data), **{**walk_options, "noise": nothing})
    return walk, diffusion.encode(data, walk.condition), bins
