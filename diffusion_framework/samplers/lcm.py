from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction, move
from .base import Sampler


@dataclass(frozen=True)
class LCM(Sampler[None]):
    """Few-step sampling of a consistency model (Song et al. 2023, Alg. 1; Luo et al. 2023): denoise, then noise anew.

    For a network distilled into a consistency model only. Its grid is `grid_of_times(schedule, distilled_times(4))`, of
    1 to 8 steps, or that of times of your own.

    Args:
        sigma_data: Of the boundary condition: the result is `c_skip x + c_out x0`, which is x itself at time 0.
        timestep_scaling: The boundary condition is taken at this many times the training step.
        timesteps: Training steps of the model that was distilled; step i lies at time (i + 1) / timesteps.
    """

    sigma_data: float = 0.5
    timestep_scaling: float = 10.0
    timesteps: int = 1000

    def __post_init__(self) -> None:
        if self.sigma_data <= 0 or self.timestep_scaling <= 0 or self.timesteps < 1:
            raise ValueError(f"LCM needs sigma_data, timestep_scaling and timesteps above 0; got {self}")

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        scaled = self.timestep_scaling * max(now.t * self.timesteps - 1, 0.0)  # no less noise was trained for
        root = math.hypot(scaled, self.sigma_data)
        x0 = torch.add(x * (self.sigma_data / root) ** 2, denoise(x, now).x0, alpha=scaled / root)
        z = None if to.is_end else noise(x)
        return move(Prediction(x0, x0), to, to.sigma, z), None  # tau = sigma': no old noise is kept
