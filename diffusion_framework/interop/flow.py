"""Spacing and sampler for flow matching schedulers of diffusers."""

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
    """Heun's method in time on the straight path of flow matching.

    It averages the velocity at both ends of a step, where `Heun` averages the noise.
    """

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        first = denoise(x, now)
        x_to = move(first, to)
        if to.is_end:
            return x_to, None
        second = denoise(x_to, to)
        velocity = (first.eps - first.x0 + second.eps - second.x0) / 2
        return x.add(velocity, alpha=to.sigma - now.sigma), None


@dataclass(frozen=True)
class FlowSpacing(Spacing):
    """Times of a flow, in which t = sigma: evenly spaced, then shifted, then stretched, then 0.

    Args:
        high: First time, before the shift.
        low: Last time above 0, before the shift. With `drop_cleanest`, the time after it.
        drop_cleanest: Whether to space one more time and then drop the cleanest.
        shift: Shift of the times, as in the schedule `Flow`.
        terminal: Last time above 0, to which the times are stretched; None or 0 for no stretch.
        sigmas: Spacing of sigmas between the first and the last time, which replace the times.
    """

    high: float = 1.0
    low: float = 0.001
    drop_cleanest: bool = False
    shift: float = 1.0
    terminal: float | None = None
    sigmas: Literal["karras", "exponential", "beta"] | None = None

    def grid(self, schedule: NoiseSchedule, trained_steps: int, steps: int) -> Grid:
        check_steps(steps)
        gaps = max(steps - 1 + self.drop_cleanest, 1)
        times = [
            shifted(self.high + (self.low - self.high) * i / gaps, self.shift) for i in range(steps)
        ]
        if self.terminal:
            stretch = (1 - self.terminal) / (1 - times[-1])
            times = [1 - (1 - time) * stretch for time in times]
        if self.sigmas and steps > 1:
            times = SIGMAS[self.sigmas](steps, times[-1], times[0])[:-1]
        return grid_of_times(schedule, times)


def shifted(t: float, shift: float) -> float:
    """Shifts a time of a flow (Esser et al. 2024, eq. 23)."""
    return shift * t / (1 + (shift - 1) * t)


def read_shift(options: Mapping[str, Any], name: str) -> float:
    """Returns the shift of a scheduler: its option `name`, or that of mu with dynamic shifting.

    Raises:
        ValueError: If time_shift_type is unknown, or mu is missing for dynamic shifting.
    """
    kind, mu = options["time_shift_type"], options["mu"]
    if kind not in ("exponential", "linear"):
        raise ValueError(
            f"Expected time_shift_type 'exponential' or 'linear', got {kind!r}. "
            "Fix: use one of them."
        )
    if not options["use_dynamic_shifting"]:
        return options[name]
    if mu is None:
        raise ValueError(
            "Expected mu for use_dynamic_shifting, got none. "
            "Fix: pass mu, which pipelines compute from the size of the image."
        )
    return math.exp(mu) if kind == "exponential" else mu
