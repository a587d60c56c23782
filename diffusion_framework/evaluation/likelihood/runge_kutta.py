"""Adaptive Runge-Kutta 5(4) solver for a state and an integral (Dormand & Prince 1980)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...progress import ProgressBar
from ...samplers.adaptive.rk45 import ERROR, STAGES

Slope = Callable[[float, Tensor], tuple[Tensor, Tensor]]


def integrate(
    slope: Slope,
    z: Tensor,
    start: float,
    end: float,
    tolerance: float,
    *,
    show_progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Solves dz/du = slope(u, z)[0] and integrates slope(u, z)[1] along the solution.

    A step is accepted if no sample's error exceeds the tolerance, neither the root mean square
    error of z nor the error of the integral.

    Args:
        slope: Function that returns the slope of z, shaped like z, and the integrand, float64
            [batch] on the CPU.
        z: State at `start`, [batch, ...].
        start: Initial value of u.
        end: Final value of u, above start.
        tolerance: Largest absolute error of a step.
        show_progress: Whether to show progress.

    Returns:
        z at `end`, and the integral [batch], float64.

    Raises:
        ValueError: If the tolerance is below the rounding error, or needs steps that are too small.
        FloatingPointError: If the slope is NaN or infinite.
    """
    _check_tolerance(tolerance, z.dtype)
    integral = torch.zeros(len(z), dtype=torch.float64)
    u, size = start, min(0.01, end - start)
    slopes, bar = [slope(u, z)], ProgressBar(100, "flow", show_progress)
    while u < end:
        if size < 1e-6 * (end - start):
            raise ValueError(
                "Expected an ODE that can be solved to the tolerance, got steps below a millionth "
                f"of the interval at tolerance={tolerance:g}. Fix: raise tolerance."
            )
        size = min(size, end - u)
        slopes = slopes[:1]
        for node, weights in STAGES:
            stage = _sum(z, weights, [dz for dz, _ in slopes], size)
            slopes.append(slope(u + node * size, stage))
        error_z, error_integral = (
            _sum(torch.zeros_like(part[0]), ERROR, part, size) for part in zip(*slopes, strict=True)
        )
        error_z = error_z.flatten(1).square().mean(1).sqrt().cpu().double()
        error = torch.maximum(error_z, error_integral.abs()).max().item() / tolerance
        _check_finite(error)
        if error <= 1:
            z, u = stage, end if size == end - u else u + size  # the last stage ends the step
            integral = _sum(integral, STAGES[-1][1], [d for _, d in slopes[:-1]], size)
            slopes = slopes[-1:]
            bar.update_to((u - start) / (end - start))
        size *= min(5.0, max(0.2, 0.9 * max(error, 1e-9) ** -0.2))
    return z, integral


def _check_tolerance(tolerance: float, dtype: torch.dtype) -> None:
    """Raises ValueError for a tolerance below the rounding error."""
    if tolerance < (least := 10 * torch.finfo(dtype).eps):
        raise ValueError(
            f"Expected a tolerance of at least {least:.1g} in {dtype}, got {tolerance:g}. "
            "Fix: raise tolerance."
        )


def _check_finite(error: float) -> None:
    if not error < float("inf"):
        raise FloatingPointError(
            "Expected finite outputs of the network along the flow, got NaN or infinity. "
            "Fix: use a checkpoint from before training diverged."
        )


def _sum(z: Tensor, weights: Sequence[float], slopes: Sequence[Tensor], size: float) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            z = z + slope * (weight * size)
    return z
