"""Noise levels, predictions, and the move between levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Scalar = Any
"""A Python float during sampling, a tensor [batch] during training. The arithmetic is the same."""

Noise = Callable[[Tensor], Tensor]
"""A function that returns standard normal noise with its argument's shape, dtype and device.

Randomness is always passed in, never global.
"""

MAX_STEPS = 100_000


def check_step_count(steps: int, name: str = "steps") -> None:
    """Checks a number of steps of a process or a grid.

    Args:
        steps: Number of steps.
        name: Name of the argument, for the error message.

    Raises:
        ValueError: If `steps` lies outside 1 to 100,000.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(
            f"Expected {name} from 1 to {MAX_STEPS}, got {steps}. Fix: choose a number in range."
        )


@dataclass(frozen=True)
class Level:
    """Noise level, one point of the forward process `x = alpha x0 + sigma eps`.

    Attributes:
        t: Time in [0, 1], from clean (0) to noisiest (1).
        alpha: Factor of the clean data.
        sigma: Standard deviation of the noise.
        log_snr: `ln(alpha² / sigma²)` in nats; +inf where sigma = 0.
    """

    t: Scalar
    alpha: Scalar
    sigma: Scalar
    log_snr: Scalar

    @property
    def is_end(self) -> bool:
        """Whether the level has no noise; only for levels of floats."""
        return bool(self.sigma == 0)

    def expand_to(self, x: Tensor) -> Level:
        """Returns the level with its tensors reshaped to broadcast against `x` [batch, ...].

        Floats stay floats.
        """
        if not isinstance(self.sigma, Tensor):
            return self
        return Level(
            *(expand_to(value, x) for value in (self.t, self.alpha, self.sigma, self.log_snr))
        )


def expand_to(value: Scalar, x: Tensor) -> Scalar:
    """Reshapes one number per sample to broadcast against `x`.

    Args:
        value: A tensor [batch], a tensor of one number [], or a float.
        x: Tensor [batch, ...].

    Returns:
        For a tensor [batch], a tensor [batch, 1, ...] with x's dtype and device. A tensor [] only
        gets x's dtype. A float is returned unchanged.
    """
    if not isinstance(value, Tensor):
        return value
    return value.to(x).reshape(-1, *(1,) * (x.ndim - 1)) if value.ndim else value.to(x.dtype)


class Prediction:
    """A denoiser's estimates of the clean data and the noise in `x`.

    Both are stored as weighted sums of the same few tensors, such as x and the network's output.
    Each sum is computed on first access. `move` combines the stored tensors directly.

    Args:
        x0: Estimate of the clean data, shaped like x.
        eps: Estimate of the noise, shaped like x; `x = alpha x0 + sigma eps`.
        variance: Learned variance of a reverse step, shaped like x, or None. For `learned_range` it
            interpolates in [0, 1] between the smallest and largest log-variance (Nichol &
            Dhariwal 2021, eq. 15); see `posterior.log_variance`.
    """

    def __init__(self, x0: Tensor, eps: Tensor, variance: Tensor | None = None) -> None:
        self.tensors: tuple[Tensor, ...] = (x0, eps)
        self.x0_weights: tuple[Scalar, ...] = (1.0, 0.0)
        self.eps_weights: tuple[Scalar, ...] = (0.0, 1.0)
        self.variance = variance

    @cached_property
    def x0(self) -> Tensor:
        """Estimate of the clean data, shaped like x."""
        return combine(self.tensors, self.x0_weights)

    @cached_property
    def eps(self) -> Tensor:
        """Estimate of the noise, shaped like x."""
        return combine(self.tensors, self.eps_weights)

    def sum(self, a: Scalar, b: Scalar) -> Tensor:
        """Returns `a x0 + b eps`, computed directly from the stored tensors."""
        return combine(self.tensors, self.weights(a, b))

    def weights(self, a: Scalar, b: Scalar) -> list[Scalar]:
        """Returns the weight of each stored tensor in `a x0 + b eps`."""
        return [a * u + b * v for u, v in zip(self.x0_weights, self.eps_weights, strict=True)]

    @staticmethod
    def of(
        tensors: tuple[Tensor, ...],
        x0_weights: tuple[Scalar, ...],
        eps_weights: tuple[Scalar, ...],
        variance: Tensor | None = None,
    ) -> Prediction:
        """Builds a prediction from weighted sums.

        Args:
            tensors: Tensors [batch, ...] of one shape.
            x0_weights: Weight of each tensor in x0.
            eps_weights: Weight of each tensor in eps.
            variance: Learned variance, as in the constructor.
        """
        prediction = Prediction(tensors[0], tensors[0], variance)
        prediction.tensors, prediction.x0_weights, prediction.eps_weights = (
            tensors,
            x0_weights,
            eps_weights,
        )
        return prediction

    @staticmethod
    def from_x0(x0: Tensor, x: Tensor, at: Level, variance: Tensor | None = None) -> Prediction:
        """Builds a prediction from the clean data and x, which must have noise (at.sigma > 0)."""
        at = at.expand_to(x)
        return Prediction.of((x, x0), (0.0, 1.0), (1 / at.sigma, -at.alpha / at.sigma), variance)

    @staticmethod
    def from_eps(eps: Tensor, x: Tensor, at: Level, variance: Tensor | None = None) -> Prediction:
        """Builds a prediction from the noise and x, which must have some signal (at.alpha > 0)."""
        at = at.expand_to(x)
        return Prediction.of((x, eps), (1 / at.alpha, -at.sigma / at.alpha), (0.0, 1.0), variance)


def combine(tensors: Sequence[Tensor], weights: Sequence[Scalar]) -> Tensor:
    """Returns sum(w t), with one pass over memory for each weight that is not 0."""
    terms = [
        (t, w) for t, w in zip(tensors, weights, strict=True) if isinstance(w, Tensor) or w != 0
    ]
    if not terms:
        return torch.zeros_like(tensors[0])
    (first, weight), *rest = terms
    if not rest and not isinstance(weight, Tensor) and weight == 1:
        return first
    total = first * weight
    for tensor, weight in rest:
        if isinstance(weight, Tensor):
            total.addcmul_(tensor, weight)
        else:
            total.add_(tensor, alpha=weight)
    return total


def move(prediction: Prediction, to: Level, tau: float = 0.0, z: Tensor | None = None) -> Tensor:
    """Moves to another level: `alpha' x0 + sqrt(sigma'² - tau²) eps + tau z`.

    Every sampler step ends in this move (Song et al. 2021, eq. 12).

    Args:
        prediction: Clean data and noise at the level the step starts from.
        to: Level the step leads to; levels of floats only.
        tau: Standard deviation of the fresh noise, in [0, to.sigma].
        z: Standard normal noise shaped like x. None returns the mean of the move.

    Returns:
        The samples at level `to`, shaped like x.
    """
    eps_factor = math.sqrt(max(to.sigma**2 - tau**2, 0.0))
    if z is None:
        return prediction.sum(to.alpha, eps_factor)
    return combine((*prediction.tensors, z), (*prediction.weights(to.alpha, eps_factor), tau))


def ancestral_std(now: Level, to: Level) -> float:
    """Returns the standard deviation of the exact reverse step (Ho et al. 2020, eq. 7).

    This is the step `q(x_to | x_now, x0)`, with standard deviation `sigma' sqrt(1 - snr / snr')`.

    Args:
        now: Level of floats the step starts from.
        to: Level of floats with less noise.
    """
    return to.sigma * math.sqrt(-math.expm1(min(now.log_snr - to.log_snr, 0.0)))


def forward_std(now: Level, to: Level) -> float:
    """Returns the standard deviation of the forward step `q(x_now | x_to)`, on any schedule.

    On a schedule with betas it is sqrt(beta) (Ho et al. 2020).

    Args:
        now: Level of floats that the reverse step starts from.
        to: Level of floats with less noise.
    """
    return now.sigma * math.sqrt(-math.expm1(min(now.log_snr - to.log_snr, 0.0)))
