from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from ..process.schedules import NoiseSchedule
from .base import Sampler
from .grids import Grid, NoiseLevel, spaced_grid
from .lower_order_final import LowerOrderFinal
from .tuned import Tuned, tuned_for
from .unipc import UniPC

State = tuple[Sampler | None, Any]
"""The sampler that takes the steps, and its state; before the first step, None and their number."""


@dataclass(frozen=True)
class Auto(Sampler[State]):
    """The best sampler and grid known for a number of network calls.

    It is UniPC of the velocity, of order 2 and of order 1 in the last step if steps are few, with
    `optimal` spacing. With an exact denoiser, order 3 is better from 10 steps on. With trained
    networks it is not, and with strong guidance its error is twice as large. The README of this
    folder has the measurements.

    Args:
        sigma_data: Approximate standard deviation of the data, above 0.
        amplifies: Whether errors of the network's output grow towards pure noise, as where it
            predicts the noise. The first step then starts at sigma / alpha = 4 times the number of
            steps, times the scale of the data (see `noise_scale`), if that is lower.
        tuned: Samplers and grids that `diffusion tune` found for the model. Each is used for its
            number of steps, if nothing else asks for another grid.
    """

    sigma_data: float = 0.5
    amplifies: bool = False
    tuned: tuple[Tuned, ...] = ()

    chooses: ClassVar[bool] = True
    default_calls: ClassVar[int | None] = 20

    def chosen(self, steps: int) -> Sampler:
        """Returns the sampler for a number of steps, each of one network call."""
        return LowerOrderFinal(UniPC(2, predict="v", sigma_data=self.sigma_data))

    def grid(
        self,
        schedule: NoiseSchedule,
        steps: int,
        *,
        first: NoiseLevel | None = None,
        last: NoiseLevel | None = None,
        scale: float = 1.0,
    ) -> Grid | None:
        tuned = tuned_for(steps, self.tuned)
        if tuned is not None and first is None and last is None:
            return tuned.grid(schedule)
        if first is None and self.amplifies:
            noisiest, limit = schedule.at(1.0), -2 * math.log(4 * steps * scale)
            first = noisiest if noisiest.log_snr > limit else schedule.at_log_snr(limit)
        return spaced_grid(schedule, steps, "optimal", first=first, last=last, scale=scale)

    def untuned(self) -> Auto:
        return replace(self, tuned=())

    def init(self, steps: int) -> State:
        return None, steps

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        sampler, inner = state
        if sampler is None:
            tuned = tuned_for(inner, self.tuned)
            is_tuned = tuned is not None and tuned.begins_with(to)
            sampler = tuned.sampler if tuned and is_tuned else self.chosen(inner)
            inner = sampler.init(inner)
        x, inner = sampler.step(denoise, x, now, to, inner, noise)
        return x, (sampler, inner)
