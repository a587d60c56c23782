from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from .base import Sampler
from .heun import Heun

State = tuple[int, Any]
"""The number of sampler steps and the state of the wrapped sampler."""


@dataclass(frozen=True)
class Churn(Sampler[State]):
    """Sampler that adds fresh noise before each step of another one (Karras et al. 2022, Alg. 2).

    Noise levels are given as sigma / alpha. A multistep sampler restarts after each raise of the
    level, so inside Churn it is of first order.

    Args:
        sampler: Sampler that steps from the raised level.
        s_churn: Amount of noise over the whole run, at least 0. Each step raises the level by a
            factor of 1 + min(s_churn / steps, sqrt(2) - 1).
        s_min: Lowest level that is raised, at least 0.
        s_max: Highest level that is raised, at least s_min.
        s_noise: Standard deviation of the fresh noise relative to the exact one, at least 0.

    Raises:
        ValueError: If an option is out of range.
    """

    sampler: Sampler = field(default_factory=Heun)
    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.0

    default_calls: ClassVar[int | None] = 100

    def __post_init__(self) -> None:
        if self.s_churn < 0 or self.s_noise < 0 or not 0 <= self.s_min <= self.s_max:
            raise ValueError(
                f"Expected s_churn >= 0, s_noise >= 0 and 0 <= s_min <= s_max, got {self}. "
                "Fix: leave these options at their defaults."
            )

    def init(self, steps: int) -> State:
        return steps, self.sampler.init(steps)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        steps, inner = state
        ratio = now.sigma / now.alpha if now.alpha else math.inf
        if self.s_churn and self.s_min <= ratio <= self.s_max:
            raised_ratio = ratio * (1 + min(self.s_churn / steps, math.sqrt(2) - 1))
            raised = denoise.schedule.at_log_snr(-2 * math.log(raised_ratio))
            added_std = raised.alpha * math.sqrt(raised_ratio**2 - ratio**2) * self.s_noise
            x, now = (x * (raised.alpha / now.alpha)).add_(noise(x), alpha=added_std), raised
            inner = self.sampler.init(steps)  # the previous state belongs to another x
        x, inner = self.sampler.step(denoise, x, now, to, inner, noise)
        return x, (steps, inner)
