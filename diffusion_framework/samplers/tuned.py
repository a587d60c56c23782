from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..process.level import Level
from ..process.schedules import NoiseSchedule
from ..storage.config import SavedAsJson
from .base import Sampler
from .grids import Grid, grid_of_log_snrs

MOST_STEPS = 1000


@dataclass(frozen=True)
class Tuned(SavedAsJson):
    """A sampler with a grid, found for one trained model by `diffusion tune`.

    Args:
        sampler: Sampler that takes the steps.
        log_snrs: Rising log-SNRs in nats where the steps after the first one start. The first one
            starts where the schedule does.

    Raises:
        ValueError: If log-SNRs do not rise, are not finite, or are more than 999.
    """

    sampler: Sampler
    log_snrs: tuple[float, ...]

    config_name = "tuned.json"

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_snrs", tuple(self.log_snrs))
        levels = self.log_snrs
        rising = all(now < to for now, to in itertools.pairwise(levels))
        if not rising or not all(map(math.isfinite, levels)) or len(self.log_snrs) >= MOST_STEPS:
            raise ValueError(
                f"Expected fewer than {MOST_STEPS} finite log-SNRs that rise, got "
                f"{levels!s:.60}. Fix: tune the model again."
            )

    @property
    def steps(self) -> int:
        """Number of steps."""
        return 1 + len(self.log_snrs)

    def begins_with(self, to: Level) -> bool:
        """Returns whether a first step to this level is that of the grid."""
        second = self.log_snrs[0] if self.log_snrs else math.inf
        return to.log_snr == second or math.isclose(to.log_snr, second, abs_tol=1e-9)

    def grid(self, schedule: NoiseSchedule) -> Grid:
        """Returns the steps, from the first level to the clean end.

        Raises:
            ValueError: If a level lies outside the schedule's range.
        """
        start = schedule.at(1.0)
        steps = grid_of_log_snrs(schedule, [start.log_snr, *self.log_snrs])
        return Grid([(start, steps[0][1]), *steps[1:]])


def tuned_for(steps: int, tuned: Sequence[Tuned]) -> Tuned | None:
    """Returns the one for a number of steps, or None."""
    return next((one for one in tuned if one.steps == steps), None)
