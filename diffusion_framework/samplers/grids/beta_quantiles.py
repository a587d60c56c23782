"""Quantiles of the beta distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_SMALLEST, _LARGEST = 0.01, 1000.0  # shape parameters
_TERMS = 1000  # of the continued fraction, which needs about the root of the shape parameters
_PRECISION = 1e-14


def beta_quantiles(shares: Sequence[float], alpha: float, beta: float) -> list[float]:
    """Returns the values in [0, 1] below which the given shares of a beta distribution lie.

    Args:
        shares: Probabilities in [0, 1].
        alpha: First shape parameter, from 0.01 to 1000.
        beta: Second shape parameter, from 0.01 to 1000.

    Raises:
        ValueError: If a shape parameter is out of range.
    """
    if not (_SMALLEST <= alpha <= _LARGEST and _SMALLEST <= beta <= _LARGEST):
        raise ValueError(
            f"Expected alpha and beta from {_SMALLEST} to {_LARGEST:g}, got {alpha=}, {beta=}. "
            "Fix: use the defaults, 0.6."
        )
    wanted = np.asarray(shares, np.float64)
    inside = (wanted > 0) & (wanted < 1)
    quantiles = wanted.copy()  # those of 0 and 1 are 0 and 1
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # the density at 0 and 1
        quantiles[inside] = _solve(wanted[inside], alpha, beta)
    return [float(quantile) for quantile in quantiles]


def _solve(wanted: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Returns where the distribution function has values in (0, 1).

    Newton's steps, and halvings of the bracket where they leave it.
    """
    low, high = np.zeros_like(wanted), np.ones_like(wanted)
    x, rest = np.full_like(wanted, alpha / (alpha + beta)), np.arange(len(wanted))
    for _ in range(100):
        at = x[rest]
        too_much = _share_below(at, alpha, beta) - wanted[rest]
        low[rest] = np.where(too_much < 0, at, low[rest])
        high[rest] = np.where(too_much < 0, high[rest], at)
        new = at - too_much / np.exp(_log_density(at, alpha, beta))
        inside = (new > low[rest]) & (new < high[rest])
        x[rest] = new = np.where(inside, new, (low[rest] + high[rest]) / 2)
        moves = np.abs(new - at) > _PRECISION * new
        rest = rest[moves & (high[rest] - low[rest] > _PRECISION)]
        if not len(rest):
            break
    return x


def _log_density(x: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Returns the log-density of the beta distribution at x in (0, 1)."""
    scale = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
    return scale + (alpha - 1) * np.log(x) + (beta - 1) * np.log1p(-x)


def _share_below(x: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Returns the distribution function, the regularised incomplete beta function, at x in (0, 1).

    The tail on the side of x away from the mean, where the continued fraction converges fast.
    """
    swaps = x > (alpha + 1) / (alpha + beta + 2)
    a, b, y = np.where(swaps, beta, alpha), np.where(swaps, alpha, beta), np.where(swaps, 1 - x, x)
    front = np.exp(_log_density(x, alpha, beta) + np.log(x) + np.log1p(-x)) / a
    tail = front / _fraction(a, b, y)
    return np.where(swaps, 1 - tail, tail)


def _fraction(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the continued fraction 1 + d1 / (1 + d2 / (1 + ...)) (DLMF 8.17.22, Lentz's method).

    Its inverse times x^a (1 - x)^b / (a B(a, b)) is the incomplete beta function.
    """
    value, over, under = np.ones_like(x), np.ones_like(x), np.zeros_like(x)
    for n in range(1, _TERMS):
        m = n // 2
        d = (
            -(a + m) * (a + b + m) * x / ((a + n - 1) * (a + n))
            if n % 2
            else m * (b - m) * x / ((a + n - 1) * (a + n))
        )
        over, under = 1 + d / over, 1 / (1 + d * under)
        change = over * under
        value = value * change
        if np.all(np.abs(change - 1) <= _PRECISION / 10):
            break
    return value
