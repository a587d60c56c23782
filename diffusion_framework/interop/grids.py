"""Spacings: make the grid of a given number of sampler steps, as the schedulers of diffusers do."""

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
"""Functions from (steps, cleanest sigma, noisiest sigma) to all sigmas, noisiest first, then 0."""


class Spacing(ABC):
    """Base of spacings, frozen dataclasses that make grids."""

    @abstractmethod
    def grid(self, schedule: NoiseSchedule, trained_steps: int, steps: int) -> Grid:
        """Returns the grid of a trajectory.

        Args:
            schedule: Noise schedule of the network.
            trained_steps: Number of process steps that the network was trained with.
            steps: Number of sampler steps.

        Raises:
            ValueError: If no grid has this number of steps.
        """


@dataclass(frozen=True)
class StepSpacing(Spacing):
    """Evenly spaced process steps, or sigmas spaced between two process steps.

    Args:
        spacing: 'leading', 'trailing' or 'linspace', as in `spaced_times`.
        offset: Number added to each process step, with 'leading' only.
        ends_clean: Whether the grid ends at the clean level rather than at process step 0.
        rounded: Whether to round the process steps of 'linspace'. Otherwise sigma / alpha is
            interpolated linearly between two process steps.
        drop_cleanest: Whether to space one more step and then drop the cleanest, unless spacing is
            'trailing'.
        sigmas: Spacing of sigmas that replace the process steps. They lie between the noisiest and
            the cleanest of these, or with `drop_cleanest` of all process steps.
        sigma_min: Cleanest sigma; None for that of the cleanest step.
        sigma_max: Noisiest sigma; None for that of the noisiest step.
        min_lambda: Smallest log-SNR / 2 of a process step, in nats; noisier steps are left out.
    """

    spacing: Literal["leading", "trailing", "linspace"]
    offset: int = 0
    ends_clean: bool = True
    rounded: bool = True
    drop_cleanest: bool = False
    sigmas: Literal["karras", "exponential", "beta"] | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    min_lambda: float = -math.inf

    def __post_init__(self) -> None:
        if self.spacing not in ("leading", "trailing", "linspace"):
            raise ValueError(
                "Expected timestep_spacing 'leading', 'trailing' or 'linspace', got "
                f"{self.spacing!r}. Fix: use one of them."
            )

    def grid(self, schedule: NoiseSchedule, trained_steps: int, steps: int) -> Grid:
        check_steps(steps)
        numbers = self._process_steps(schedule, trained_steps, steps)
        levels = [_at_process_step(schedule, trained_steps, number) for number in numbers]
        if self.sigmas:
            ends = (levels[0], levels[-1])
            if self.drop_cleanest:
                ends = (schedule.at(1.0), schedule.at(1 / trained_steps))
            levels = [
                schedule.at_log_snr(-2 * math.log(sigma))
                for sigma in self._spaced_sigmas(*ends, steps)
            ]
        last = schedule.clean if self.ends_clean else schedule.at(1 / trained_steps)
        grid = Grid(
            (now, to)
            for now, to in itertools.pairwise([*levels, last])
            if to.log_snr - now.log_snr > 1e-9
        )
        if not grid:
            raise ValueError(
                f"Expected a grid with at least one step, got steps={steps}, from process step "
                f"{numbers[0]:g} to the same level. Fix: take more steps."
            )
        return grid

    def _process_steps(
        self, schedule: NoiseSchedule, trained_steps: int, steps: int
    ) -> Sequence[float]:
        """Returns the process steps at which sampler steps start, noisiest first."""
        count = steps + (self.drop_cleanest and self.spacing != "trailing")
        offset = self.offset if self.spacing == "leading" else 0
        levels = schedule.at(
            torch.arange(1, trained_steps + 1, dtype=torch.float64, device="cpu") / trained_steps
        )
        usable = int((levels.log_snr / 2 >= self.min_lambda).sum())
        if self.spacing == "linspace" and not self.rounded and 1 < steps < usable:
            return [(usable - 1) * (steps - 1 - i) / (steps - 1) for i in range(steps)]
        times = spaced_times(count, self.spacing, usable)[:steps]
        numbers = [round(time * usable) - 1 + offset for time in times]
        if numbers[0] >= trained_steps:
            raise ValueError(
                f"Expected steps_offset within the {trained_steps} process steps, got {offset} "
                f"past the last one. Fix: take fewer than {steps} steps."
            )
        return numbers

    def _spaced_sigmas(self, high: Level, low: Level, steps: int) -> list[float]:
        # Sigmas must be finite, so a level without signal gets alpha² = 2⁻²⁴, as in diffusers.
        noisiest = self.sigma_max or (high.sigma / high.alpha if high.alpha else 2.0**12)
        if steps == 1:
            return [noisiest]
        assert self.sigmas is not None
        return SIGMAS[self.sigmas](steps, self.sigma_min or low.sigma / low.alpha, noisiest)[:-1]


@dataclass(frozen=True)
class DistilledSpacing(Spacing):
    """Process steps of a consistency model, taken evenly from those of its distillation.

    Args:
        original: Number of process steps of the distillation.
    """

    original: int = 50

    def grid(self, schedule: NoiseSchedule, trained_steps: int, steps: int) -> Grid:
        return grid_of_times(schedule, distilled_times(steps, self.original, trained_steps))


@dataclass(frozen=True)
class GeometricSpacing(Spacing):
    """Sigmas in geometric progression over an exploding schedule, then the clean level.

    Args:
        last_time: Time at which the last step starts, in [0, 1]. If it is not 0, the steps start at
            the sigmas at or below evenly spaced times, each at most once. The last step ends at the
            next sigma.
    """

    last_time: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.last_time <= 1:
            raise ValueError(
                f"Expected sampling_eps in [0, 1], got {self.last_time}. Fix: use 1e-5."
            )

    def grid(self, schedule: NoiseSchedule, trained_steps: int, steps: int) -> Grid:
        low, high = schedule.at(0.0), schedule.at(1.0)
        sigmas = exponential_sigmas(steps, low.sigma, high.sigma)[:-1]
        levels = [schedule.at_log_snr(-2 * math.log(sigma)) for sigma in sigmas]
        levels.append(schedule.clean)
        taken = dict.fromkeys(math.ceil((1 - self.last_time) * i - 1e-9) for i in range(steps))
        return Grid((levels[i], levels[j]) for i, j in itertools.pairwise([*taken, max(taken) + 1]))


def _at_process_step(schedule: NoiseSchedule, trained_steps: int, number: float) -> Level:
    """Returns the level of a process step; a fraction interpolates sigma / alpha linearly."""
    low, fraction = divmod(number, 1)
    clean, noisy = (
        schedule.at((low + 1) / trained_steps),
        schedule.at(min((low + 2) / trained_steps, 1.0)),
    )
    if fraction == 0:
        return clean
    if noisy.alpha == 0:
        return schedule.at((number + 1) / trained_steps)
    sigma = (1 - fraction) * clean.sigma / clean.alpha + fraction * noisy.sigma / noisy.alpha
    return schedule.at_log_snr(-2 * math.log(sigma))
