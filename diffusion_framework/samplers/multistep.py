"""Multistep methods: exact steps of the probability-flow ODE for polynomials through predictions.

The `..._factors` functions write the ODE in four ways, each with a linear part solved in closed
form. The predicted quantity (clean data, noise or velocity) is averaged over the step under a known
density. The functions return the factors of `x' = f0 x + f1 p1 + f2 p2 + …`. The factors depend
only on a few floats, so they are cached.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from ..process.level import Level, Prediction

Levels = tuple[Level, ...]
"""Levels of the predictions; the first is the start of the step.

In a corrector, another one is the end of the step.
"""


def is_long(now: Level, to: Level) -> bool:
    """Returns whether a step spans more than a factor of 10 in sigma / alpha.

    Methods that average predicted noise over such a step magnify the differences of predictions.
    """
    return abs(to.log_snr - now.log_snr) > 2 * math.log(10)


def moments(count: int, z: float) -> list[float]:
    """Returns E[u^k] for k = 0 to count - 1, where u in [0, 1] has a density ∝ exp(z u).

    z = 0 is the uniform density. The closed form loses precision for small z and the series for
    large z, so each is used where it is exact.
    """
    if abs(z) > 2:
        # For z > 0, J_k = exp(-z) ∫ u^k exp(z u) du, integrated by parts.
        # For z < 0, the same without the factor exp(-z).
        end, start = (1.0, math.exp(-z)) if z > 0 else (math.exp(z), 1.0)
        integrals = [(end - start) / z]
        for k in range(1, count):
            integrals.append((end - k * integrals[-1]) / z)
    else:
        integrals = [
            sum(z**j / (math.factorial(j) * (k + j + 1)) for j in range(30)) for k in range(count)
        ]
    return [integral / integrals[0] for integral in integrals]


@lru_cache(maxsize=4096)
def mean_weights(nodes: tuple[float, ...], z: float = 0.0) -> tuple[float, ...]:
    """Returns weights for averaging a polynomial, given by its values at some nodes.

    sum(w f(nodes)) is the mean of the polynomial through f(nodes), under the density ∝ exp(z u) for
    u in [0, 1].

    Args:
        nodes: Positions of the predictions, all different, in units of the step. 0 is its start, 1
            its end.
        z: Exponent of the density; 0 is the uniform density.

    Raises:
        ValueError: If two nodes are equal.
    """
    if len(set(nodes)) < len(nodes):
        raise ValueError(
            f"Expected predictions at different levels, got {nodes}. Fix: remove equal levels."
        )
    with torch.device("cpu"):
        powers = torch.tensor(
            [[node**k for node in nodes] for k in range(len(nodes))], dtype=torch.float64
        )
        integrals = torch.tensor(moments(len(nodes), z), dtype=torch.float64)
    return tuple(torch.linalg.solve(powers, integrals).tolist())


@lru_cache(maxsize=4096)
def x0_factors(
    levels: Levels, now: Level, to: Level, eta: float = 0.0, uniform: bool = False
) -> tuple[float, ...]:
    """Returns the factors of x and of predicted clean data (DPM-Solver++, Lu et al. 2022b).

    The polynomial is in log-SNR, averaged under the exact density. A step to sigma = 0 uses
    only the newest prediction.

    Args:
        levels: Levels of the predictions; see `Levels`.
        now: Level the step starts from, with sigma > 0.
        to: Level the step leads to.
        eta: Share of fresh noise, in [0, 1]; the factors give the mean.
        uniform: Whether to average over log-SNR under the uniform density instead.
    """
    h = (to.log_snr - now.log_snr) / 2
    ratio = to.sigma / now.sigma * (math.exp(-eta * h) if eta else 1.0)
    weights = _mean_over_step(
        tuple(at.log_snr for at in levels), to.log_snr, 0.0 if uniform else (1 + eta) * h
    )
    return ratio, *((to.alpha - ratio * now.alpha) * w for w in weights)


@lru_cache(maxsize=4096)
def eps_factors(
    levels: Levels, now: Level, to: Level, eta: float = 0.0, uniform: bool = False
) -> tuple[float, ...]:
    """Returns the factors of x and of predicted noise (DPM-Solver, Lu et al. 2022a).

    The polynomial is in log-SNR; a step to sigma = 0 uses the polynomial in sigma / alpha. See
    `x0_factors` for the arguments; now.alpha must be above 0.
    """
    if to.is_end:
        return sigma_factors(levels, now, to)
    h = (to.log_snr - now.log_snr) / 2
    weights = _mean_over_step(
        tuple(at.log_snr for at in levels), to.log_snr, 0.0 if uniform else -h
    )
    ratio = to.alpha / now.alpha
    return ratio, *((1 + eta) * (to.sigma - ratio * now.sigma) * w for w in weights)


@lru_cache(maxsize=4096)
def sigma_factors(levels: Levels, now: Level, to: Level) -> tuple[float, ...]:
    """Returns the factors of x and of predicted noise, for the polynomial in sigma / alpha.

    It is the Adams–Bashforth method (Liu et al. 2022), for now.alpha > 0.
    """
    weights = _mean_over_step(tuple(at.sigma / at.alpha for at in levels), to.sigma / to.alpha, 0.0)
    ratio = to.alpha / now.alpha
    return ratio, *((to.sigma - ratio * now.sigma) * w for w in weights)


@lru_cache(maxsize=4096)
def v_factors(levels: Levels, now: Level, to: Level, sigma_data: float) -> tuple[float, ...]:
    """Returns the factors of x and of predicted `velocity`.

    The polynomial is in the angle atan(sigma / (alpha sigma_data)). The ODE is
    d(x / r) / d angle = velocity with r² = sigma² + alpha² sigma_data², regular at both ends. For
    Gaussian data of standard deviation sigma_data the velocity is 0, and steps of any length are
    exact.
    """
    angles = tuple(_angle(at, sigma_data) for at in levels)
    weights = _mean_over_step(angles, _angle(to, sigma_data), 0.0)
    scale, turn = _scale(to, sigma_data), _angle(to, sigma_data) - angles[0]
    return scale / _scale(now, sigma_data), *(scale * turn * w for w in weights)


def velocity(prediction: Prediction, at: Level, sigma_data: float) -> torch.Tensor:
    """Returns d(x / r) / d angle of `v_factors`.

    It is the network output F of EDM with opposite sign (Karras et al. 2022).
    """
    scale = sigma_data * _scale(at, sigma_data)
    return prediction.sum(-at.sigma / scale, at.alpha * sigma_data**2 / scale)


def _mean_over_step(nodes: tuple[float, ...], end: float, z: float) -> tuple[float, ...]:
    """Returns `mean_weights` for a step from the first node to `end`.

    If the step is infinite, only the first prediction has weight.
    """
    start = nodes[0]
    if len(nodes) == 1 or not math.isfinite(end - start):
        return 1.0, *(0.0 for _ in nodes[1:])
    return mean_weights(tuple((node - start) / (end - start) for node in nodes), z)


def _angle(at: Level, sigma_data: float) -> float:
    return math.atan2(at.sigma, at.alpha * sigma_data)


def _scale(at: Level, sigma_data: float) -> float:
    """Returns r of `v_factors`."""
    return math.hypot(at.sigma, at.alpha * sigma_data)
