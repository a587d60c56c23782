from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, move
from ..process.schedules import NoiseSchedule
from .base import Sampler
from .grids import Grid, grid_of_sigmas

_FIRST = 160.0  # sigma / alpha of the first level and of the middle one of two steps, both for
_MIDDLE = 1.642  # data with standard deviation 1 (Geng et al. 2024: 80 and .821 for images)


@dataclass(frozen=True)
class Consistency(Sampler[None]):
    """Multistep consistency sampling (Song et al. 2023, Alg. 1).

    Each step estimates the clean data and adds fresh noise of the next level. It is for models
    trained with `ConsistencyLoss`, in 1 to 8 steps.

    Args:
        sigma_data: Standard deviation of the data, above 0, which scales the levels of `grid`.

    Raises:
        ValueError: If sigma_data is out of range.
    """

    sigma_data: float = 0.5

    default_calls: ClassVar[int | None] = 2

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(
                f"Expected a finite sigma_data above 0, got {self.sigma_data}. "
                "Fix: take 0.5 for images."
            )

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Returns levels even in the angle atan(s / .821), s = sigma / alpha, for images.

        The first level has s = 80, or is the noisiest of the schedule.
        """
        first = min(_FIRST * self.sigma_data, math.exp(-schedule.at(1.0).log_snr / 2))
        angles = (math.pi / 2 * (1 - step / steps) for step in range(1, steps))
        sigmas = [_MIDDLE * self.sigma_data * math.tan(angle) for angle in angles]
        return grid_of_sigmas(schedule, [first, *sigmas])

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        z = None if to.is_end else noise(x)
        return move(denoise(x, now, to), to, to.sigma, z), None
