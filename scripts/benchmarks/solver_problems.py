"""Sampling problems with a known end: Gaussian mixtures, mixtures with an error, trained runs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from diffusion_framework import EDM, Cosine, Flow, GaussianDiffusion, Sigmoid, UniPC
from diffusion_framework.denoisers import Denoiser
from diffusion_framework.process.level import Level, Prediction
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.process.schedules import (
    VE,
    Linear,
    LinearBeta,
    NoiseSchedule,
    Scaled,
    ScaledLinearBeta,
    SquaredCosBeta,
)
from diffusion_framework.samplers import Auto, trajectory
from diffusion_framework.samplers.grids import Grid, spaced_grid

SCHEDULES: dict[str, NoiseSchedule] = {
    "Sigmoid": Sigmoid(),
    "Sigmoid, tau 0.5": Sigmoid(tau=0.5),
    "Sigmoid, start 0, tau 0.9": Sigmoid(start=0.0, tau=0.9),
    "Sigmoid, scale 0.5": Scaled(Sigmoid(), 0.5),
    "Cosine": Cosine(),
    "Cosine, start 0.2, tau 2": Cosine(start=0.2, tau=2.0),
    "Linear": Linear(),
    "LinearBeta": LinearBeta(),
    "ScaledLinearBeta": ScaledLinearBeta(),
    "SquaredCosBeta": SquaredCosBeta(),
    "EDM": EDM(),
    "VE": VE(),
    "Flow": Flow(),
    "Flow, shift 3": Flow(shift=3.0),
}
WITH_ERRORS = ("Sigmoid", "LinearBeta", "EDM", "Flow")
_NOISIEST = 1e5  # sigma / alpha from which the exact solution starts instead of pure noise


class Problem(ABC):
    """Noise, a denoiser, and the end of its ODE from that noise.

    Attributes:
        schedule: Noise schedule.
        z: Noise, [batch, ...].
        end: Samples at the clean end, [batch, ...].
    """

    schedule: NoiseSchedule
    z: Tensor
    end: Tensor

    @abstractmethod
    def denoiser(self) -> Denoiser:
        """Returns a denoiser with an empty memory."""

    def auto(self, calls: int) -> Tensor:
        """Returns the end of the default sampler."""
        grid = Auto().grid(self.schedule, calls)
        assert grid is not None
        return self._walked(Auto(), grid)

    def _walked(self, sampler: Any, grid: Grid) -> Tensor:
        x = self.z * grid.start.sigma
        *_, last = trajectory(sampler, self.denoiser(), x, grid, generator_noise())
        return last.x / last.to.alpha


@dataclass(frozen=True)
class Mixture:
    """A mixture of equally likely Gaussians, whose means and stds are [modes, dimensions]."""

    name: str
    means: Tensor
    stds: Tensor

    def estimate(self, y: Tensor, s: float) -> Tensor:
        """Returns the posterior mean of clean data for y = x / alpha at s = sigma / alpha."""
        variance = self.stds**2 + s**2
        off = y[:, None] - self.means
        pull = off / variance
        logits = -0.5 * ((off * pull).sum(-1) + variance.log().sum(-1))
        return (torch.softmax(logits, -1)[..., None] * (self.means + self.stds**2 * pull)).sum(1)


class SmoothError:
    """A smooth random function of x and the level, of RMS size 1, as a network's error may be."""

    def __init__(self, dimensions: int, seed: int) -> None:
        draw = partial(
            torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        self.waves, self.phases = 3 * draw(8, dimensions) / math.sqrt(dimensions), 6.3 * draw(8)
        self.speeds, self.out = 0.7 * draw(8), draw(8, dimensions) / 2

    def __call__(self, y: Tensor, s: float) -> Tensor:
        seen = y / math.hypot(s, 0.5)
        angles = seen @ self.waves.T + self.phases + self.speeds * math.log(s + 1e-4)
        return torch.sin(angles) @ self.out


class MixtureProblem(Problem):
    """A mixture on a schedule, whose denoiser is exact up to a smooth error.

    Args:
        mixture: Distribution of the data.
        schedule: Name of the schedule.
        error: RMS size of the error, relative to the output of a network that is preconditioned as
            in Karras et al. 2022.
        seed: Seed of noise and error.
        samples: Number of samples.
    """

    def __init__(
        self, mixture: Mixture, schedule: str, error: float, seed: int, samples: int
    ) -> None:
        dimensions = mixture.means.shape[1]
        self.mixture, self.size, self.error = mixture, error, SmoothError(dimensions, seed)
        self.schedule = SCHEDULES[schedule]
        generator = torch.Generator().manual_seed(seed)
        self.z = torch.randn(samples, dimensions, generator=generator, dtype=torch.float64)
        self.end = self._exact_end()

    def estimate(self, y: Tensor, s: float) -> Tensor:
        estimate = self.mixture.estimate(y, s)
        if self.size == 0:
            return estimate
        return estimate + self.size * 0.5 * s / math.hypot(s, 0.5) * self.error(y, s)

    def denoiser(self) -> Denoiser:
        return _Estimating(self)

    def _exact_end(self) -> Tensor:
        first = self.schedule.at(1.0)
        start = min(first.sigma / first.alpha if first.alpha else math.inf, _NOISIEST)
        end = math.log(1e-6)

        def slope(log_s: float, flat: np.ndarray) -> np.ndarray:
            y, s = torch.from_numpy(flat).view_as(self.z), math.exp(log_s)
            return (y - self.estimate(y, s)).flatten().numpy()

        span, noise = (math.log(start), end), (self.z * start).flatten().numpy()
        precision = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-10}
        solution = solve_ivp(slope, span, noise, t_eval=[end], **precision)
        return torch.from_numpy(solution.y[:, -1]).view_as(self.z)


class _Estimating:
    def __init__(self, problem: MixtureProblem) -> None:
        self.problem, self.schedule = problem, problem.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        if at.alpha == 0:  # pure noise tells nothing: the estimate is the mean of the data
            y, s = x / at.sigma * _NOISIEST, _NOISIEST
        else:
            y, s = x / at.alpha, at.sigma / at.alpha
        return Prediction.from_x0(self.problem.estimate(y, s), x, at)


class RunProblem(Problem):
    """A trained run, and its ends after many network calls.

    Args:
        folder: Its results folder.
        seed: Seed of the noise.
        samples: Number of samples.
        calls: Number of network calls of the reference.
    """

    def __init__(self, folder: str, seed: int, samples: int, calls: int) -> None:
        self.diffusion = GaussianDiffusion.from_pretrained(folder)
        self.schedule = self.diffusion.schedule
        generator = torch.Generator().manual_seed(seed)
        self.z = torch.randn(samples, *self.diffusion.sample_shape, generator=generator)
        classes = self.diffusion.num_classes
        self.told = {} if classes is None else {"labels": torch.arange(samples) % classes}
        grid = spaced_grid(self.schedule, calls, "optimal")
        with torch.no_grad():
            self.end = self._walked(UniPC(predict="v"), grid)

    def denoiser(self) -> Denoiser:
        return self._walk(steps=50, self_conditioning=1.0).denoise

    @torch.no_grad()
    def auto(self, calls: int) -> Tensor:
        walk = self._walk(calls=calls)
        *_, last = trajectory(walk.sampler, walk.denoise, walk.start, walk.grid, walk.noise)
        return last.x / last.to.alpha

    def _walk(self, **options: Any) -> Any:
        return self.diffusion.walk(len(self.z), noise=self.z, **self.told, **options)


def mixtures(seed: int) -> Iterator[Mixture]:
    """Yields mixtures in 1, 2 and 16 dimensions with two to twelve modes, narrow to wide.

    Their values are of about the size of images in [-1, 1].
    """
    generator = torch.Generator().manual_seed(seed)

    def rand(modes: int, dimensions: int) -> Tensor:
        return torch.rand(modes, dimensions, generator=generator, dtype=torch.float64)

    one = torch.ones(1, dtype=torch.float64)
    angles = torch.arange(5, dtype=torch.float64)[:, None] * (2 * math.pi / 5) + rand(1, 1)
    ring = 0.7 * torch.cat([angles.cos(), angles.sin()], dim=1)
    spectrum = torch.logspace(0, -2, 16, dtype=torch.float64).expand(3, 16) * 0.6
    pair = one[:, None] * (one.new_tensor([[-0.7], [0.6]]) + 0.2 * rand(2, 1) - 0.1)
    yield Mixture("16-D, 8 modes, width 0.2", rand(8, 16) * 2 - 1, 0.2 * one.expand(8, 16))
    yield Mixture("1-D, 2 modes, widths 0.1 and 0.25", pair, one.new_tensor([[0.1], [0.25]]))
    yield Mixture("2-D, ring of 5, width 0.05", ring, 0.05 * one.expand(5, 2))
    yield Mixture("1-D, 2 wide modes", 0.7 * pair, one.new_tensor([[0.4], [0.3]]))
    yield Mixture("2-D, 3 modes, widths 0.1 to 0.4", rand(3, 2) * 2 - 1, 0.1 + 0.3 * rand(3, 2))
    yield Mixture("16-D, 12 modes, width 0.05", rand(12, 16) * 2 - 1, 0.05 * one.expand(12, 16))
    yield Mixture("16-D, 3 modes, widths 0.6 to 0.006", (rand(3, 16) * 2 - 1) * spectrum, spectrum)
