"""What networks of flow matching ask for: their spacing of times, and Heun's method in time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, move
from ..process.schedules import NoiseSchedule
from ..samplers import Sampler
from ..samplers.grids import Grid, grid_of_times
from ..samplers.grids.times import check_steps
from .grids import SIGMAS, Spacing


@dataclass(frozen=True)
class FlowHeun(Sampler[None]):
    """Heun's method in time on the straight path: the velocity is averaged, where `Heun` averages the noise."""

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        here = denoise(x, now)
        there = move(here, to)
        if to.is_end:
            return there, None
        after = denoise(there, to)
        velocity = (here.eps - here.x0 + after.eps - after.x0) / 2
        return x.add(velocity, alpha=to.sigma - now.sigma), None


@dataclass(frozen=True)
class FlowSpacing(Spacing):
    """Times of a flow, where t = sigma: evenly spaced, then shifted, then stretched, and 0.

    Args:
        high: First time, before the shift.
        low: Last time but the 0, before the shift; or with `spare` the one after it.
        spare: Space one time more and leave out the cleanest.
        shift: As of the schedule `Flow`.
        terminal: Stretch the times so that the last but the 0 is this.
        sigmas: In place of the times, sigmas between the first and the last.
    """

    high: float = 1.0
    low: float = 0.001
    spare: bool = False
    shift: float = 1.0
    terminal: float | None = None
    sigmas: Literal["karras", "exponential", "beta"] | None = None

    def grid(self, schedule: NoiseSchedule, trained: int, steps: int) -> Grid:
        check_steps(steps)
        gaps = max(steps - 1 + self.spare, 1)
        times = [shifted(self.high + (self.low - self.high) * i / gaps, self.shift) for i in range(steps)]
        if self.terminal:
            stretch = (1 - self.terminal) / (1 - times[-1])
            times = [1 - (1 - time) * stretch for time in times]
        if self.sigmas and steps > 1:
            times = SIGMAS[self.sigmas](steps, times[-1], times[0])[:-1]
        return grid_of_times(schedule, times)


def shifted(t: float, shift: float) -> float:
    """A time of a flow, shifted (Esser et al. 2024, eq. 23)."""
    return shift * t / (1 + (shift - 1) * t)


def shift_of(options: Mapping[str, Any], plain: str) -> float:
    """The shift that the options of a scheduler describe: that named `plain`, or one by mu."""
    kind, mu = options["time_shift_type"], options["mu"]
    if kind not in ("exponential", "linear"):
        raise ValueError(f"time_shift_type must be 'exponential' or 'linear'; got {kind!r}")
    if not options["use_dynamic_shifting"]:
        return options[plain]
    if mu is None:
        raise ValueError("use_dynamic_shifting takes the shift from the images' size; got no mu: pass mu=...")
    return math.exp(mu) if kind == "exponential" else mu
