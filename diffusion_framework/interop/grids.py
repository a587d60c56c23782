"""From a number of steps to a grid, as the schedulers of diffusers space them."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..process.level import Level
from ..process.schedules import NoiseSchedule
from ..samplers.grids import (
    Grid,
    beta_sigmas,
    distilled_times,
    exponential_sigmas,
    grid_of_times,
    karras_sigmas,
    spaced_times,
)
from ..samplers.grids.times import check_steps

SIGMAS: dict[str, Callable[[int, float, float], list[float]]] = {
    "karras": karras_sigmas,
    "exponential": exponential_sigmas,
    "beta": beta_sigmas,
}
"""From a number of steps, the cleanest and the noisiest sigma to all sigmas, and 0."""


class Spacing(ABC):
    """A frozen dataclass with one method, `grid`."""

    @abstractmethod
    def grid(self, schedule: NoiseSchedule, trained: int, steps: int) -> Grid:
        """The grid of so many steps, for a schedule trained in `trained` steps."""


@dataclass(frozen=True)
class StepSpacing(Spacing):
    """Steps of training, evenly spaced, or sigmas between two of them.

    Args:
        spacing: As for `spaced_times`.
        offset: Added to each step, with `leading` only.
        clean: End at the clean level rather than at the first step of training.
        whole: Round the steps of `linspace`; otherwise sigma / alpha is interpolated linearly between two steps.
        spare: Space one step more and leave out the cleanest (not with `trailing`).
        sigmas: In place of the steps, sigmas between the noisiest and the cleanest of them, or of training if `spare`.
        sigma_min: The cleanest of the sigmas; None for that of the cleanest step.
        sigma_max: The noisiest of the sigmas; None for that of the noisiest step.
        lowest: Steps whose log-SNR / 2 lies below this are left out.
    """

    spacing: Literal["leading", "trailing", "linspace"]
    offset: int = 0
    clean: bool = True
    whole: bool = True
    spare: bool = False
    sigmas: Literal["karras", "exponential", "beta"] | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    lowest: float = -math.inf

    def __post_init__(self) -> None:
        if self.spacing not in ("leading", "trailing", "linspace"):
            raise ValueError(
                f"timestep_spacing must be 'leading', 'trailing' or 'linspace'; got {self.spacing!r}: name one of them"
            )

    def grid(self, schedule: NoiseSchedule, trained: int, steps: int) -> Grid:
        check_steps(steps)
        numbers = self._numbers(schedule, trained, steps)
        levels = [_at_step(schedule, trained, number) for number in numbers]
        if self.sigmas:
            ends = (levels[0], levels[-1])
            if self.spare:
                ends = (schedule.at(1.0), schedule.at(1 / trained))
            levels = [schedule.at_log_snr(-2 * math.log(sigma)) for sigma in self._between(*ends, steps)]
        last = schedule.clean if self.clean else schedule.at(1 / trained)
        grid = [(now, to) for now, to in itertools.pairwise([*levels, last]) if to.log_snr - now.log_snr > 1e-9]
        if not grid:
            raise ValueError(
                f"no step leads anywhere; got {steps} from step {numbers[0]:g} of training: take more steps"
            )
        return grid

    def _numbers(self, schedule: NoiseSchedule, trained: int, steps: int) -> Sequence[float]:
        """Steps of training, falling."""
        count = steps + (self.spare and self.spacing != "trailing")
        offset = self.offset if self.spacing == "leading" else 0
        at_steps = schedule.at(torch.arange(1, trained + 1, dtype=torch.float64, device="cpu") / trained)
        usable = int((at_steps.log_snr / 2 >= self.lowest).sum())
        if self.spacing == "linspace" and not self.whole and 1 < steps < usable:
            return [(usable - 1) * (steps - 1 - i) / (steps - 1) for i in range(steps)]
        times = spaced_times(count, self.spacing, usable)[:steps]
        numbers = [round(time * usable) - 1 + offset for time in times]
        if numbers[0] >= trained:
            raise ValueError(
                f"steps_offset leads past the last of {trained} steps; got {offset}: take fewer than {steps}"
            )
        return numbers

    def _between(self, high: Level, low: Level, steps: int) -> list[float]:
        # As diffusers does, a level without signal is taken as one with alpha² = 2⁻²⁴: sigmas must be finite.
        noisiest = self.sigma_max or (high.sigma / high.alpha if high.alpha else 2.0**12)
        if steps == 1:
            return [noisiest]
        assert self.sigmas is not None
        return SIGMAS[self.sigmas](steps, self.sigma_min or low.sigma / low.alpha, noisiest)[:-1]


@dataclass(frozen=True)
class DistilledSpacing(Spacing):
    """Steps of a consistency model: some of the `original` ones it was distilled at.

    Args:
        original: Number of steps of the distillation.
    """

    original: int = 50

    def grid(self, schedule: NoiseSchedule, trained: int, steps: int) -> Grid:
        return grid_of_times(schedule, distilled_times(steps, self.original, trained))


@dataclass(frozen=True)
class GeometricSpacing(Spacing):
    """Sigmas in geometric progression between the two ends of an exploding schedule, then the clean level."""

    def grid(self, schedule: NoiseSchedule, trained: int, steps: int) -> Grid:
        low, high = schedule.at(0.0), schedule.at(1.0)
        sigmas = exponential_sigmas(steps, low.sigma, high.sigma)[:-1]
        levels = [schedule.at_log_snr(-2 * math.log(sigma)) for sigma in sigmas]
        return list(itertools.pairwise([*levels, schedule.clean]))


def _at_step(schedule: NoiseSchedule, trained: int, number: float) -> Level:
    """The level of a step of training; between two of them sigma / alpha is interpolated linearly."""
    low, part = divmod(number, 1)
    clean, noisy = schedule.at((low + 1) / trained), schedule.at(min((low + 2) / trained, 1.0))
    if part == 0:
        return clean
    if noisy.alpha == 0:
        return schedule.at((number + 1) / trained)
    sigma = (1 - part) * clean.sigma / clean.alpha + part * noisy.sigma / noisy.alpha
    return schedule.at_log_snr(-2 * math.log(sigma))
