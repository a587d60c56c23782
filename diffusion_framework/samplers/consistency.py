from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, check_step_count, move
from ..process.schedules import NoiseSchedule
from .base import Sampler
from .grids import Grid, NoiseLevel, grid_of_sigmas, level_of

# For data of standard deviation 1. For images, with 0.5, they give the levels of two steps of
# Geng et al. 2024: sigma / alpha 80, then .821.
_FIRST, _SCALE = 160.0, 1.659


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

    def grid(
        self,
        schedule: NoiseSchedule,
        steps: int,
        *,
        first: NoiseLevel | None = None,
        last: NoiseLevel | None = None,
        scale: float = 1.0,
    ) -> Grid:
        """Returns levels even in the angle atan(s / .83), where s = sigma / alpha, for images.

        The first level is 80 or, if that is less, the noisiest of the schedule; see `Sampler.grid`.
        """
        check_step_count(steps)
        scale, noisiest = _SCALE * self.sigma_data, schedule.at(1.0)
        start = min(_FIRST * self.sigma_data, _sigma(noisiest))
        if first is not None:
            start = _sigma(level_of(schedule, first, "first"))
        angle, least = math.atan(start / scale), 0.0
        if last is not None:
            least = math.atan(_sigma(level_of(schedule, last, "last")) / scale)
        intervals = steps if last is None else max(steps - 1, 1)
        angles = [angle + (least - angle) * step / intervals for step in range(1, steps)]
        sigmas = [scale * math.tan(one) for one in angles]
        quietest = _sigma(schedule.at(0.0))
        return grid_of_sigmas(schedule, [start, *(s for s in sigmas if s > quietest)])

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        z = None if to.is_end else noise(x)
        return move(denoise(x, now, to), to, to.sigma, z), None


def _sigma(level: Level) -> float:
    """Returns sigma / alpha; infinite for pure noise."""
    return math.exp(min(-level.log_snr / 2, 700.0))
