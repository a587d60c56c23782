from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from .base import Sampler
from .heun import Heun

State = tuple[int, Any]  # number of steps, state of the sampler inside


@dataclass(frozen=True)
class Churn(Sampler[State]):
    """Adds a little fresh noise before each step of any sampler (Karras et al. 2022, Alg. 2; levels are sigma / alpha).

    A multistep sampler starts afresh after each raise, so within Churn it is of first order.

    Args:
        sampler: What steps then, from the raised level.
        s_churn: Amount over the whole run: a step raises the level 1 + min(s_churn / steps, sqrt(2) - 1) times.
        s_min: Lowest level that is raised.
        s_max: Highest level that is raised.
        s_noise: Standard deviation of the fresh noise, in units of the exact one.
    """

    sampler: Sampler = field(default_factory=Heun)
    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.s_churn < 0 or self.s_noise < 0 or not 0 <= self.s_min <= self.s_max:
            raise ValueError(f"needs s_churn >= 0, s_noise >= 0 and 0 <= s_min <= s_max; got {self}")

    def init(self, steps: int) -> State:
        return steps, self.sampler.init(steps)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        steps, inner = state
        ratio = now.sigma / now.alpha if now.alpha else math.inf
        if self.s_churn and self.s_min <= ratio <= self.s_max:
            raised = ratio * (1 + min(self.s_churn / steps, math.sqrt(2) - 1))
            above = denoise.schedule.at_log_snr(-2 * math.log(raised))
            added = above.alpha * math.sqrt(raised**2 - ratio**2) * self.s_noise
            x, now = (x * (above.alpha / now.alpha)).add_(noise(x), alpha=added), above
            inner = self.sampler.init(steps)  # what it remembers led to another x
        x, inner = self.sampler.step(denoise, x, now, to, inner, noise)
        return x, (steps, inner)


@dataclass(frozen=True)
class KarrasVE(Churn):
    """The stochastic sampler of Karras et al. 2022 (Alg. 2): Churn around Heun, by one name and with their settings."""

    s_churn: float = 80.0
    s_noise: float = 1.007
