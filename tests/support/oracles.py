"""Exact denoisers of data with a known distribution, where E[x0 | x] has a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion_framework import Sigmoid
from diffusion_framework.process.level import Level, Prediction
from diffusion_framework.process.schedules import NoiseSchedule


@dataclass
class GaussianOracle:
    """Exact denoiser of data N(mean, std²) in every dimension; std = 0 is a single point."""

    mean: float = 0.3
    std: float = 0.5
    schedule: NoiseSchedule = field(default_factory=Sigmoid)

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        at = at.expand_to(x)
        variance = at.alpha**2 * self.std**2 + at.sigma**2
        x0 = self.mean + at.alpha * self.std**2 / variance * (x - at.alpha * self.mean)
        return Prediction.from_x0(x0, x, at)

    def marginal(self, at: Level) -> tuple[float, float]:
        """Returns the mean and the standard deviation of x at a level."""
        return at.alpha * self.mean, math.sqrt(at.alpha**2 * self.std**2 + at.sigma**2)

    def flow(self, x: Tensor, now: Level, to: Level) -> Tensor:
        """Returns the exact solution at `to` of the probability-flow ODE from x at `now`."""
        (mean_now, std_now), (mean_to, std_to) = self.marginal(now), self.marginal(to)
        return mean_to + (x - mean_now) * std_to / std_now

    def reverse_log_variance(self, now: Level, to: Level) -> float:
        """Returns ln of the variance of q(x_to | x_now), the optimum of a learned variance."""
        (_, std_now), (_, std_to) = self.marginal(now), self.marginal(to)
        return 2 * math.log(std_to) + math.log1p(-((now.alpha / to.alpha * std_to / std_now) ** 2))


@dataclass
class MixtureOracle:
    """Exact denoiser of data of two narrow Gaussians in every dimension."""

    means: tuple[float, ...] = (-0.7, 0.6)
    stds: tuple[float, ...] = (0.1, 0.25)
    weights: tuple[float, ...] = (0.35, 0.65)
    schedule: NoiseSchedule = field(default_factory=Sigmoid)

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        means, stds, weights = (
            torch.tensor(v, dtype=x.dtype) for v in (self.means, self.stds, self.weights)
        )
        level, at = at, at.expand_to(x[..., None])
        variances = at.alpha**2 * stds**2 + at.sigma**2
        off = x[..., None] - at.alpha * means
        share = torch.softmax(
            weights.log() - 0.5 * variances.log() - 0.5 * off**2 / variances, dim=-1
        )
        x0 = (share * (means + at.alpha * stds**2 / variances * off)).sum(-1)
        return Prediction.from_x0(x0, x, level)

    def cdf(self, x: Tensor) -> Tensor:
        """Returns the cumulative distribution function of the clean data."""
        total = torch.zeros_like(x)
        for mean, std, weight in zip(self.means, self.stds, self.weights, strict=True):
            total += weight * torch.special.ndtr((x - mean) / std)
        return total
