"""Interpolation between samples (Song et al. 2021, sec. 5.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..diffusion import GaussianDiffusion
from .inversion import decode, invert


def interpolate(
    diffusion: GaussianDiffusion, first: Tensor, second: Tensor, *, count: int = 8, **options: Any
) -> Tensor:
    """Interpolates between pairs of samples along great circles of their noises.

    Args:
        diffusion: Diffusion model.
        first: First sample of each pair in the user's units, [batch, ...].
        second: Second sample of each pair, shaped like first.
        count: Number of samples from the first to the second, both included; at least 2.
        options: Options of `invert`.

    Returns:
        Data in the user's units, [batch, count, ...].

    Raises:
        ValueError: If count is below 2, the shapes differ, or `invert` refuses an argument.
    """
    if count < 2:
        raise ValueError(
            f"Expected a count of at least 2, for the two ends, got {count}. Fix: set count=8."
        )
    if first.shape != second.shape:
        raise ValueError(
            f"Expected second shaped like first, {[*first.shape]}, got {[*second.shape]}. "
            "Fix: give one second sample for each first one."
        )
    a, b = (invert(diffusion, data, **options) for data in (first, second))
    between = [slerp(a, b, i / (count - 1)) for i in range(count)]
    return torch.stack([decode(diffusion, noise, **options) for noise in between], dim=1)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Interpolates spherically between samples, at `share` of the way from first to second.

    Points on the great circle between two noises [batch, ...] have the norm of noise; points on the
    straight line would have a smaller one.
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine).clamp(min=1e-4)  # linear interpolation between equal noises
    point = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    return point.reshape(first.shape)
