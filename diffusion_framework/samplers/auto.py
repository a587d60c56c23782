from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from ..process.schedules import NoiseSchedule
from .base import Sampler
from .grids import Grid, NoiseLevel, spaced_grid
from .lower_order_final import LowerOrderFinal
from .unipc import UniPC

State = tuple[Sampler, Any]
"""The sampler that takes the steps, and its state."""


@dataclass(frozen=True)
class Auto(Sampler[State]):
    """The sampler and the grid that suit the number of network calls best.

    Args:
        sigma_data: Approximate standard deviation of the data, above 0.
    """

    sigma_data: float = 0.5

    default_calls: ClassVar[int | None] = 20

    def chosen(self, steps: int) -> Sampler:
        """Returns the sampler for a number of steps, each of one network call."""
        order = 2 if steps < 8 else 3
        return LowerOrderFinal(UniPC(order, predict="v", sigma_data=self.sigma_data))

    def grid(
        self,
        schedule: NoiseSchedule,
        steps: int,
        *,
        first: NoiseLevel | None = None,
        last: NoiseLevel | None = None,
    ) -> Grid | None:
        return spaced_grid(schedule, steps, "optimal", first=first, last=last)

    def init(self, steps: int) -> State:
        sampler = self.chosen(steps)
        return sampler, sampler.init(steps)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        sampler, inner = state
        x, inner = sampler.step(denoise, x, now, to, inner, noise)
        return x, (sampler, inner)
