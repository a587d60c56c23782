"""Density of the probability-flow ODE (Song et al. 2021b, sec. 4.3 and app. D.2).

The ODE is integrated over the angle `phi = atan(sigma / alpha)` in the variance-preserving variable
`z = x / sqrt(alpha² + sigma²)`. With any schedule, dz/dphi is then the velocity
`cos(phi) eps - sin(phi) x0`, up to pure noise at phi = pi/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ...denoisers import Denoiser
from ...losses.variational import bits_per_dim, gaussian_nll
from ...process.level import Level, Noise
from .runge_kutta import integrate

Trace = Literal["rademacher", "gaussian", "exact"]


def flow_bits(
    denoise: Denoiser,
    x0: Tensor,
    noise: Noise,
    *,
    trace: Trace = "rademacher",
    tolerance: float = 1e-5,
    sigma_min: float = 1e-3,
    bins: int | None = 256,
    show_progress: bool = False,
) -> Tensor:
    """Computes -log2 of the density of x0 under the probability flow, per dimension.

    The flow starts from N(0, sigma²) at the schedule's last level, as `sample` does. If this level
    has some signal left, the density is that of these samples, not of a start from noised data.

    With bins, x0 is dequantised uniformly over its bin, and the result is an upper bound on the
    bits of the discrete data.

    Args:
        denoise: Denoiser that depends on x and the level only and is differentiable in x. Clipping
            would change the flow.
        x0: Clean data in [-1, 1], [batch, ...].
        noise: Function that draws the noise of the dequantisation and of the probe.
        trace: Divergence of the flow. 'rademacher' and 'gaussian' use Hutchinson's estimator e' J e
            with one probe e for the whole flow. 'exact' takes one backward pass per dimension.
        tolerance: Largest error of a solver step, in standard deviations of the noisiest level and
            in nats per dimension.
        sigma_min: sigma / alpha at which the flow starts from x0, above 0. The schedule's value at
            t = 0 is used instead if it is larger.
        bins: Number of data values, evenly spaced over [-1, 1]: 256 for 8-bit images, None for
            continuous data.
        show_progress: Whether to show progress.

    Returns:
        Bits per dimension [batch], float64.

    Raises:
        ValueError: If trace is unknown, sigma_min is not above 0, or the ODE cannot be solved to
            the tolerance.
    """
    _check(trace, sigma_min)
    offset = 0.0
    if bins is not None:
        width = 2 / (bins - 1)
        x0 = x0 + (torch.special.ndtr(noise(x0)) - 0.5) * width
        offset = -math.log2(width)
    probe = None
    if trace != "exact":
        probe = noise(x0) if trace == "gaussian" else torch.where(noise(x0) < 0, -1.0, 1.0).to(x0)
    schedule = denoise.schedule
    first, last = schedule.at(0.0), schedule.at(1.0)
    low, high = last.log_snr, min(first.log_snr, -2 * math.log(sigma_min))

    def slope(phi: float, z: Tensor) -> tuple[Tensor, Tensor]:
        at = schedule.at_log_snr(min(max(-2 * math.log(math.tan(phi)), low), high))
        return _with_divergence(lambda z: _velocity(denoise, z, at), z, probe)

    start, end = _angle(schedule.at_log_snr(high)), _angle(last)
    z, divergence = integrate(
        slope, x0 * math.cos(start), start, end, tolerance, show_progress=show_progress
    )
    z = z.cpu().double()
    nats = gaussian_nll(z, torch.zeros_like(z), torch.tensor(math.log(math.sin(end))))
    return bits_per_dim(nats) - (divergence / math.log(2) + math.log2(math.cos(start))) + offset


def _check(trace: str, sigma_min: float) -> None:
    """Raises ValueError for an option out of range."""
    if not 0 < sigma_min < math.inf:
        raise ValueError(
            f"Expected sigma_min above 0 and finite, got {sigma_min}. Fix: use the default 1e-3."
        )
    if trace not in ("rademacher", "gaussian", "exact"):
        raise ValueError(
            f"Expected trace 'rademacher', 'gaussian' or 'exact', got {trace!r}. "
            "Fix: use one of them."
        )


def _angle(at: Level) -> float:
    return math.atan2(at.sigma, at.alpha)


def _velocity(denoise: Denoiser, z: Tensor, at: Level) -> Tensor:
    radius = math.hypot(at.alpha, at.sigma)
    prediction = denoise(z * radius, at)
    return (at.alpha / radius) * prediction.eps - (at.sigma / radius) * prediction.x0


@torch.enable_grad()
def _with_divergence(
    velocity: Callable[[Tensor], Tensor], z: Tensor, probe: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns the velocity at z [batch, ...] and its divergence per dimension [batch].

    The divergence is exact without a probe, and an estimate with one.
    """
    z = z.detach().requires_grad_()
    value = velocity(z)
    if probe is not None:
        (product,) = torch.autograd.grad(value, z, probe)
        return value.detach(), (product * probe).flatten(1).cpu().double().mean(1)
    total = torch.zeros(len(z), dtype=torch.float64)
    dims = value[0].numel()
    for i in range(dims):
        (row,) = torch.autograd.grad(value.flatten(1)[:, i].sum(), z, retain_graph=i + 1 < dims)
        total += row.flatten(1)[:, i].cpu().double()
    return value.detach(), total / dims
