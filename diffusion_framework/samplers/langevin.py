from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from .base import Sampler
from .ddpm import DDPM


@dataclass(frozen=True)
class Langevin(Sampler[Any]):
    """Predictor-corrector sampler, with Langevin dynamics before each step of another sampler.

    It follows Song et al. 2021b, Alg. 4 and 5, with the step size `2 (snr sigma)²` for the score.
    The paper divides the norms of the added noise and of the score instead. Their ratio is close to
    sigma in many dimensions, but it depends on the noise and biases the result in few dimensions.
    Many corrections increase the variance by a factor of about 1 + snr². They help where the
    predictor's error is larger.

    Args:
        sampler: Sampler that steps after the correction (the predictor).
        snr: Signal-to-noise ratio of a correction, above 0.
        correct_steps: Corrections before each step, at least 0; each takes one network call.

    Raises:
        ValueError: If an option is out of range.
    """

    sampler: Sampler = field(default_factory=DDPM)
    snr: float = 0.16
    correct_steps: int = 1

    def __post_init__(self) -> None:
        if self.snr <= 0 or self.correct_steps < 0:
            raise ValueError(
                f"Expected snr > 0 and correct_steps >= 0, got {self.snr}, {self.correct_steps}. "
                "Fix: use the defaults, 0.16 and 1."
            )

    def init(self, steps: int) -> Any:
        return self.sampler.init(steps)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        for _ in range(self.correct_steps):
            # step size over sigma²; the factor of alpha is sqrt(1 - beta) of the paper
            size = 2 * (now.alpha / to.alpha * self.snr) ** 2
            eps, z = denoise(x, now).eps, noise(x)
            x = torch.add(x, eps, alpha=-size * now.sigma)
            x = x.add_(z, alpha=math.sqrt(2 * size) * now.sigma)
        return self.sampler.step(denoise, x, now, to, state, noise)
