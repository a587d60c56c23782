"""The two values everything else passes around: a noise `Level` and a `Prediction`, and the `move` between levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Scalar = Any
"""A Python float while sampling, a tensor [batch] while training: the same arithmetic serves both."""

Noise = Callable[[Tensor], Tensor]
"""Standard normal noise with the shape, dtype and device of its argument: randomness is passed in, never global."""

MOST_STEPS = 100_000


def check_step_count(steps: int, name: str = "steps") -> None:
    """Raise ValueError unless a process or a grid can have so many steps: 1 to 100,000."""
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"Expected {name} from 1 to {MOST_STEPS}, got {steps}.")


@dataclass(frozen=True)
class Level:
    """A point of the forward process `x = alpha x0 + sigma eps`.

    Attributes:
        t: Time in [0, 1]: 0 is clean, 1 is the noisiest.
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
        """Whether no noise is left. For a level of floats only."""
        return bool(self.sigma == 0)

    def expand_to(self, x: Tensor) -> Level:
        """Returns this level with every tensor expanded to multiply `x` [batch, ...]; floats stay floats."""
        if not isinstance(self.sigma, Tensor):
            return self
        return Level(*(expand_to(value, x) for value in (self.t, self.alpha, self.sigma, self.log_snr)))


def expand_to(value: Scalar, x: Tensor) -> Scalar:
    """Returns one number a sample [batch] as [batch, 1, ...] of x's dtype and device, to multiply `x` [batch, ...].

    A Python float, the same for all samples, is returned as it is; a tensor of one number [] only gets x's dtype.
    """
    if not isinstance(value, Tensor):
        return value
    return value.to(x).reshape(-1, *(1,) * (x.ndim - 1)) if value.ndim else value.to(x.dtype)


class Prediction:
    """What a denoiser says of `x`: the clean data, the noise in it, and (if learned) where the variance lies.

    Both are weighted sums of the same few tensors, such as x and the network's output. They are added up when first
    asked for; `move` goes straight from those tensors to the next x.

    Args:
        x0: Estimate of the clean data, shaped like x.
        eps: Estimate of the noise, shaped like x; `x = alpha x0 + sigma eps`.
        variance: Learned interpolation in [0, 1] between the smallest and largest log-variance of a reverse step
            (Nichol & Dhariwal 2021, eq. 15), or None.
    """

    def __init__(self, x0: Tensor, eps: Tensor, variance: Tensor | None = None) -> None:
        self.tensors: tuple[Tensor, ...] = (x0, eps)
        self.x0_weights: tuple[Scalar, ...] = (1.0, 0.0)
        self.eps_weights: tuple[Scalar, ...] = (0.0, 1.0)
        self.variance = variance

    @cached_property
    def x0(self) -> Tensor:
        """Estimate of the clean data."""
        return combine(self.tensors, self.x0_weights)

    @cached_property
    def eps(self) -> Tensor:
        """Estimate of the noise."""
        return combine(self.tensors, self.eps_weights)

    def sum(self, a: Scalar, b: Scalar) -> Tensor:
        """`a x0 + b eps`, straight from the tensors."""
        return combine(self.tensors, self.weights(a, b))

    def weights(self, a: Scalar, b: Scalar) -> list[Scalar]:
        """Of the tensors in `a x0 + b eps`."""
        return [a * of_x0 + b * of_eps for of_x0, of_eps in zip(self.x0_weights, self.eps_weights, strict=True)]

    @staticmethod
    def of(
        tensors: tuple[Tensor, ...],
        x0_weights: tuple[Scalar, ...],
        eps_weights: tuple[Scalar, ...],
        variance: Tensor | None = None,
    ) -> Prediction:
        """The prediction whose clean data and noise are these sums of the tensors."""
        prediction = Prediction(tensors[0], tensors[0], variance)
        prediction.tensors, prediction.x0_weights, prediction.eps_weights = tensors, x0_weights, eps_weights
        return prediction

    @staticmethod
    def from_x0(x0: Tensor, x: Tensor, at: Level, variance: Tensor | None = None) -> Prediction:
        """The prediction with this clean data, its noise read off x; needs at.sigma > 0."""
        at = at.expand_to(x)
        return Prediction.of((x, x0), (0.0, 1.0), (1 / at.sigma, -at.alpha / at.sigma), variance)

    @staticmethod
    def from_eps(eps: Tensor, x: Tensor, at: Level, variance: Tensor | None = None) -> Prediction:
        """The prediction with this noise, its clean data read off x; needs at.alpha > 0."""
        at = at.expand_to(x)
        return Prediction.of((x, eps), (1 / at.alpha, -at.sigma / at.alpha), (0.0, 1.0), variance)


def combine(tensors: Sequence[Tensor], weights: Sequence[Scalar]) -> Tensor:
    """sum(w t), in as many passes over memory as there are weights that are not 0."""
    kept = [(t, w) for t, w in zip(tensors, weights, strict=True) if isinstance(w, Tensor) or w != 0]
    if not kept:
        return torch.zeros_like(tensors[0])
    (first, weight), *rest = kept
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
    """The one move every sampler ends in: `alpha' x0 + sqrt(sigma'² - tau²) eps + tau z` (Song et al. 2021, eq. 12).

    Args:
        prediction: Clean data and noise, from the level left behind.
        to: The level to go to.
        tau: Standard deviation of the fresh part of the noise, in [0, to.sigma].
        z: Standard normal noise shaped like x. None leaves the fresh part out, which gives the mean of the move.
    """
    kept = math.sqrt(max(to.sigma**2 - tau**2, 0.0))
    if z is None:
        return prediction.sum(to.alpha, kept)
    return combine((*prediction.tensors, z), (*prediction.weights(to.alpha, kept), tau))


def ancestral_std(now: Level, to: Level) -> float:
    """Standard deviation of the exact reverse step `q(x_to | x_now, x0)` (Ho et al. 2020, eq. 7).

    `sigma' sqrt(1 - snr / snr')`, for levels of floats that fall in noise from `now` to `to`.
    """
    return to.sigma * math.sqrt(-math.expm1(min(now.log_snr - to.log_snr, 0.0)))


def forward_std(now: Level, to: Level) -> float:
    """Standard deviation of the forward step `q(x_now | x_to)`: sqrt(beta) of Ho et al. 2020, for any schedule."""
    return now.sigma * math.sqrt(-math.expm1(min(now.log_snr - to.log_snr, 0.0)))
