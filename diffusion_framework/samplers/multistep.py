"""Multistep methods: the exact step of the probability-flow ODE for the polynomial through a few predictions.

The functions at the end write the ODE in four ways, each with all that is known in closed form taken out: what is
predicted (clean data, noise or velocity) is then averaged over the step under a known density. They return the factors
of `x' = f0 x + f1 p1 + f2 p2 + …`. Everything is a function of a few floats, so it is cached and costs a step nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from ..process.level import Level, Prediction

Levels = tuple[Level, ...]
"""Where the predictions were made, the first where the step starts; one may lie where it ends, as in a corrector."""


def moments(count: int, z: float) -> list[float]:
    """E[u^k] for k = 0 .. count - 1 and u in [0, 1] with density ∝ exp(z u); z = 0 is the uniform density.

    The closed form loses digits where z is small, and the series where it is large: each is used where it is exact.
    """
    if abs(z) > 2:
        # J_k = exp(-z) ∫ u^k exp(z u) du for z > 0, by parts; mirrored (without the factor) for z < 0
        end, start = (1.0, math.exp(-z)) if z > 0 else (math.exp(z), 1.0)
        integrals = [(end - start) / z]
        for k in range(1, count):
            integrals.append((end - k * integrals[-1]) / z)
    else:
        integrals = [sum(z**j / (math.factorial(j) * (k + j + 1)) for j in range(30)) for k in range(count)]
    return [integral / integrals[0] for integral in integrals]


@lru_cache(maxsize=4096)
def mean_weights(nodes: tuple[float, ...], z: float = 0.0) -> tuple[float, ...]:
    """Weights w such that sum(w f(nodes)) is the mean of the polynomial through f, under density ∝ exp(z u) on [0, 1].

    Args:
        nodes: Positions of the predictions, all different, in steps: 0 is where the step starts, 1 where it ends.
        z: Steepness of the density.

    Raises:
        ValueError: two equal nodes.
    """
    if len(set(nodes)) < len(nodes):
        raise ValueError(f"predictions must lie at different levels; got {nodes}")
    with torch.device("cpu"):
        powers = torch.tensor([[node**k for node in nodes] for k in range(len(nodes))], dtype=torch.float64)
        integrals = torch.tensor(moments(len(nodes), z), dtype=torch.float64)
    return tuple(torch.linalg.solve(powers, integrals).tolist())


@lru_cache(maxsize=4096)
def x0_factors(levels: Levels, now: Level, to: Level, eta: float = 0.0, uniform: bool = False) -> tuple[float, ...]:
    """Of x and of clean data: their polynomial in log-SNR under the exact density (DPM-Solver++, Lu et al. 2022b).

    The step to sigma = 0 takes the newest alone.

    Args:
        levels: See `Levels`.
        now: Where the step starts; sigma > 0.
        to: Where it ends.
        eta: Share of fresh noise, in [0, 1]; the factors are those of the mean.
        uniform: Take the mean over log-SNR under the uniform density instead.
    """
    h = (to.log_snr - now.log_snr) / 2
    ratio = to.sigma / now.sigma * (math.exp(-eta * h) if eta else 1.0)
    weights = _mean_over_step(tuple(at.log_snr for at in levels), to.log_snr, 0.0 if uniform else (1 + eta) * h)
    return ratio, *((to.alpha - ratio * now.alpha) * w for w in weights)


@lru_cache(maxsize=4096)
def eps_factors(levels: Levels, now: Level, to: Level, eta: float = 0.0, uniform: bool = False) -> tuple[float, ...]:
    """Of x and of noise: its polynomial in log-SNR (DPM-Solver, Lu et al. 2022a); arguments as for `x0_factors`.

    The step to sigma = 0 takes the polynomial in sigma / alpha. now.alpha must be above 0.
    """
    if to.is_end:
        return sigma_factors(levels, now, to)
    h = (to.log_snr - now.log_snr) / 2
    weights = _mean_over_step(tuple(at.log_snr for at in levels), to.log_snr, 0.0 if uniform else -h)
    ratio = to.alpha / now.alpha
    return ratio, *((1 + eta) * (to.sigma - ratio * now.sigma) * w for w in weights)


@lru_cache(maxsize=4096)
def sigma_factors(levels: Levels, now: Level, to: Level) -> tuple[float, ...]:
    """Of x and of noise: its polynomial in sigma / alpha (Adams–Bashforth; Liu et al. 2022). Needs now.alpha > 0."""
    weights = _mean_over_step(tuple(at.sigma / at.alpha for at in levels), to.sigma / to.alpha, 0.0)
    ratio = to.alpha / now.alpha
    return ratio, *((to.sigma - ratio * now.sigma) * w for w in weights)


@lru_cache(maxsize=4096)
def v_factors(levels: Levels, now: Level, to: Level, sigma_data: float) -> tuple[float, ...]:
    """Of x and of velocity (see `velocity`): its polynomial in the angle atan(sigma / (alpha sigma_data)).

    With r² = sigma² + alpha² sigma_data² the ODE is d(x / r) / d angle = velocity, regular at both ends. Where the data
    is Gaussian with that standard deviation, the velocity is 0 and a step of any length is exact.
    """
    angles = tuple(_angle(at, sigma_data) for at in levels)
    weights = _mean_over_step(angles, _angle(to, sigma_data), 0.0)
    size = _size(to, sigma_data)
    return size / _size(now, sigma_data), *(size * (_angle(to, sigma_data) - angles[0]) * w for w in weights)


def velocity(prediction: Prediction, at: Level, sigma_data: float) -> torch.Tensor:
    """d(x / r) / d angle as `v_factors` has it: EDM's network output F with its sign changed (Karras et al. 2022)."""
    size = sigma_data * _size(at, sigma_data)
    return prediction.sum(-at.sigma / size, at.alpha * sigma_data**2 / size)


def _mean_over_step(nodes: tuple[float, ...], end: float, z: float) -> tuple[float, ...]:
    """`mean_weights` on a step from the first node to `end`; no polynomial goes through infinity."""
    start = nodes[0]
    if len(nodes) == 1 or not math.isfinite(end - start):
        return 1.0, *(0.0 for _ in nodes[1:])
    return mean_weights(tuple((node - start) / (end - start) for node in nodes), z)


def _angle(at: Level, sigma_data: float) -> float:
    return math.atan2(at.sigma, at.alpha * sigma_data)


def _size(at: Level, sigma_data: float) -> float:
    return math.hypot(at.sigma, at.alpha * sigma_data)
