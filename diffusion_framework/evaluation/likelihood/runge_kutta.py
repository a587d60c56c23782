"""Runge-Kutta 5(4), its steps chosen, for a state and an integral beside it (Dormand & Prince
1980).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...samplers.adaptive.rk45 import ERROR, STAGES

Slope = Callable[[float, Tensor], tuple[Tensor, Tensor]]


def integrate(
    slope: Slope, z: Tensor, start: float, end: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Solve dz/du = slope(u, z)[0] from z at `start` to `end` > start, and integrate slope(u, z)[1]
    along it.

    A step is taken if no sample's error is above `tolerance`: neither the root mean square of z's,
    nor the integral's.

    Args:
        slope: Gives two tensors: shaped like z [batch, ...], and float64 [batch] on the CPU.
        tolerance: Absolute error of a step.

    Returns:
        z at `end`, and the integral [batch], float64.

    Raises:
        ValueError: a tolerance below rounding, or one that needs steps too small to come to an end.
        FloatingPointError: the slope is NaN or infinite.
    """
    if tolerance < (least := 10 * torch.finfo(z.dtype).eps):
        raise ValueError(
            f"tolerance must be at least {least:.1g} in {z.dtype}; got {tolerance:g}: raise it"
        )
    total = torch.zeros(len(z), dtype=torch.float64)
    u, size = start, min(0.01, end - start)
    slopes = [slope(u, z)]
    while u < end:
        if size < 1e-6 * (end - start):
            raise ValueError(f"the ODE cannot be solved to a tolerance of {tolerance:g}; raise it")
        size = min(size, end - u)
        slopes = slopes[:1]
        for node, weights in STAGES:
            at = _sum(z, weights, [dz for dz, _ in slopes], size)
            slopes.append(slope(u + node * size, at))
        off, off_total = (
            _sum(torch.zeros_like(part[0]), ERROR, part, size) for part in zip(*slopes, strict=True)
        )
        off = off.flatten(1).square().mean(1).sqrt().cpu().double()
        error = torch.maximum(off, off_total.abs()).max().item() / tolerance
        if not error < float("inf"):
            raise FloatingPointError(
                "the network gave NaN or infinity along the flow; was its training stable?"
            )
        if error <= 1:
            z, u = at, end if size == end - u else u + size  # the last stage lies at the step's end
            total = _sum(total, STAGES[-1][1], [d for _, d in slopes[:-1]], size)
            slopes = slopes[-1:]
        size *= min(5.0, max(0.2, 0.9 * max(error, 1e-9) ** -0.2))
    return z, total


def _sum(z: Tensor, weights: Sequence[float], slopes: Sequence[Tensor], size: float) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            z = z + slope * (weight * size)
    return z
