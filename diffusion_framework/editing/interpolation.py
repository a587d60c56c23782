"""Between two samples (Song et al. 2021, sec. 5.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..diffusion import GaussianDiffusion
from .inversion import decode, invert


def interpolate(
    diffusion: GaussianDiffusion, first: Tensor, second: Tensor, *, count: int = 8, **options: Any
) -> Tensor:
    """Data between pairs of samples, both ends included: [batch, count, ...].

    Their noises are joined by great circles.

    Args:
        diffusion: The model.
        first: [batch, ...] in the user's units.
        second: Shaped like first.
        count: Number of samples on the way, at least 2.
        options: As for `invert`.

    Raises:
        ValueError: count is below 2; or those of `invert`.
    """
    if count < 2:
        raise ValueError(
            f"Expected a count of at least 2, the two ends, got {count}. Fix: count=8."
        )
    a, b = (invert(diffusion, data, **options) for data in (first, second))
    between = [slerp(a, b, i / (count - 1)) for i in range(count)]
    return torch.stack([decode(diffusion, noise, **options) for noise in between], dim=1)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point at `share` of the way from first to second along a great circle, for each sample.

    Between two noises [batch, ...] those are noises again: a straight line would pass through
    smaller ones.
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine).clamp(min=1e-4)  # between equal noises, as on a straight line
    point = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    return point.reshape(first.shape)
