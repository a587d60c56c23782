from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..denoisers import Clip, Threshold
from ..process.level import Level
from ..process.objectives import Objective
from ..process.schedules import NoiseSchedule
from ..samplers import Sampler
from ..samplers.grids import Grid
from .grids import Spacing


@dataclass(frozen=True)
class SchedulerRecipe:
    """How a published network was trained and is to be sampled.

    Attributes:
        schedule: Step i of N of its training lies at time (i + 1) / N; of a flow, at i / N.
        objective: What its output means.
        sampler: Takes the steps of a grid.
        spacing: Makes the grids.
        trained_steps: N.
        clip_denoised: How each estimate of the clean data is kept in range, if it is. It goes to
            `GaussianDiffusion.sample`, or to `TransformX0`.
        clean_step: Number of the step at the clean end: -1, or 0 for a flow.
    """

    schedule: NoiseSchedule
    objective: Objective
    sampler: Sampler
    spacing: Spacing
    trained_steps: int = 1000
    clip_denoised: Clip | Threshold | Literal[False] = False
    clean_step: int = -1

    def grid(self, steps: int) -> Grid:
        """The levels of a trajectory of `steps` steps, fewer if one of them would lead to where it starts.

        Raises:
            ValueError: more steps than the network was trained for, or none.
        """
        return self.spacing.grid(self.schedule, self.trained_steps, steps)

    def timestep(self, at: Level) -> float:
        """The step of training at a level of floats, from 0, as published networks take it; between two, a fraction.

        Networks of ScoreSdeVe and KarrasVe take `at.sigma` instead.
        """
        return at.t * self.trained_steps + self.clean_step
