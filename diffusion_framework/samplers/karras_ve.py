from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from .base import Sampler
from .churn import Churn, State
from .heun import Heun


@dataclass(frozen=True)
class KarrasVE(Sampler[State]):
    """Stochastic sampler of Karras et al. 2022, Alg. 2: Churn around Heun, with their settings.

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
    s_churn: float = 80.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.007

    default_calls: ClassVar[int | None] = 100

    def __post_init__(self) -> None:
        _ = self.churn  # checks the options

    @property
    def churn(self) -> Churn:
        """`Churn` with the same options, which takes the steps."""
        return Churn(self.sampler, self.s_churn, self.s_min, self.s_max, self.s_noise)

    def init(self, steps: int) -> State:
        return self.churn.init(steps)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        return self.churn.step(denoise, x, now, to, state, noise)
