"""`SchedulerRecipe`, the parts that describe how to sample from a published network."""

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
    """Describes how a published network was trained and how to sample from it.

    Attributes:
        schedule: Noise schedule of its training. Process step i of N lies at time (i + 1) / N, or
            at i / N for a flow.
        objective: Meaning of the network's output.
        sampler: Sampler that takes the steps of a grid.
        spacing: Spacing that makes the grids.
        trained_steps: Number of process steps of its training, N.
        clip_denoised: Function that keeps estimates of the clean data in range, or False. It suits
            `TransformX0(denoise, clip_denoised)` and `GaussianDiffusion.sample`.
        clean_step: Number of the process step at the clean end: -1, or 0 for a flow.
    """

    schedule: NoiseSchedule
    objective: Objective
    sampler: Sampler
    spacing: Spacing
    trained_steps: int = 1000
    clip_denoised: Clip | Threshold | Literal[False] = False
    clean_step: int = -1

    def grid(self, steps: int) -> Grid:
        """Returns the levels of a trajectory.

        Steps that would end at the level where they start are left out, so the grid may have fewer
        steps.

        Args:
            steps: Number of sampler steps.

        Raises:
            ValueError: If steps exceeds the number of process steps, or no step is left.
        """
        return self.spacing.grid(self.schedule, self.trained_steps, steps)

    def timestep(self, at: Level) -> float:
        """Returns the process step of a level, counted from 0, as the published network takes it.

        Between two process steps it is a fraction. Networks of ScoreSdeVe and KarrasVe take
        `at.sigma` instead, as `time_input='sigma'` gives it.

        Args:
            at: Level of floats.
        """
        return at.t * self.trained_steps + self.clean_step
