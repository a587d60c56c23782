from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction, move
from ..process.schedules import NoiseSchedule
from .base import Sampler
from .grids import Grid, NoiseLevel, distilled_times, grid_of_times


@dataclass(frozen=True)
class LCM(Sampler[None]):
    """Few-step sampler of consistency models, which alternates denoising and fresh noise.

    It follows Song et al. 2023, Alg. 1, and Luo et al. 2023, and needs a network distilled into a
    consistency model. Take 1 to 8 steps, which are chosen among those of the distillation (see
    `distilled_times`) unless a spacing or a grid is given.

    Args:
        sigma_data: Standard deviation of the data in the boundary condition, above 0. The result is
            `c_skip x + c_out x0`, which equals x at training step 0.
        timestep_scaling: Factor of the training step in the boundary condition, above 0.
        timesteps: Number of process steps in training of the distilled model; step i lies at time
            (i + 1) / timesteps.
        original_steps: Number of steps in the distillation, from 1 to timesteps.

    Raises:
        ValueError: If an option is out of range.
    """

    sigma_data: float = 0.5
    timestep_scaling: float = 10.0
    timesteps: int = 1000
    original_steps: int = 50

    default_calls: ClassVar[int | None] = 4

    def __post_init__(self) -> None:
        counts = 1 <= self.original_steps <= self.timesteps
        if self.sigma_data <= 0 or self.timestep_scaling <= 0 or not counts:
            raise ValueError(
                "Expected sigma_data and timestep_scaling above 0 and original_steps from 1 to "
                f"timesteps, got {self}. Fix: leave these options at their defaults."
            )

    def grid(
        self,
        schedule: NoiseSchedule,
        steps: int,
        *,
        first: NoiseLevel | None = None,
        last: NoiseLevel | None = None,
        scale: float = 1.0,
    ) -> Grid | None:
        if first is not None or last is not None:
            return None
        times = distilled_times(steps, self.original_steps, self.timesteps)
        return grid_of_times(schedule, times)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        # lower noise than at training step 0 was not trained
        scaled = self.timestep_scaling * max(now.t * self.timesteps - 1, 0.0)
        root = math.hypot(scaled, self.sigma_data)
        x0 = torch.add(x * (self.sigma_data / root) ** 2, denoise(x, now).x0, alpha=scaled / root)
        z = None if to.is_end else noise(x)
        # with tau = sigma', all noise is fresh
        return move(Prediction(x0, x0), to, to.sigma, z), None
