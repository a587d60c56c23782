from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine
from ..process.schedules import NoiseSchedule
from .base import Sampler
from .grids import Grid, NoiseLevel, spaced_grid
from .multistep import v_factors, velocity, x0_factors

History = tuple[tuple[Level, Tensor], ...]
"""Levels with their predictions [batch, ...], newest first."""
State = tuple[History, tuple[Tensor, Level] | None]
"""History, and x and level at the start of the last step (None if it is not corrected)."""


@dataclass(frozen=True)
class UniPC(Sampler[State]):
    """Unified predictor-corrector (Zhao et al. 2023), with one network call per step.

    When the prediction at the end of a step is known, the step is repeated with it. This raises the
    order by one at no cost.

    With predict='v', the same is done for the velocity, in the angle between data and noise, where
    the ODE is smoother. With an exact denoiser, this is the most accurate sampler of the package,
    best with optimal spacing. With few steps even in log-SNR from a high first level, a step in
    angle may be many times the last one, and magnifies the network's errors. Use order=2, or more
    steps, on these grids. B(h) has no effect with predict='v'.

    Args:
        order: Number of predictions of the predictor, from 1 to 3; the corrector uses one more.
        variant: Function B(h): h for 'bh1', exp(h) - 1 for 'bh2'. It has an effect only with two
            predictions of x0, where the paper sets a coefficient to 1/2 instead of solving for it.
        corrector: Whether to correct. Without it, predict='x0' is multistep DPM-Solver++.
        predict: Quantity averaged over a step: the clean data ('x0', as published) or the velocity
            ('v').
        sigma_data: Approximate standard deviation of the data, above 0, for predict='v'.

    Raises:
        ValueError: If an option is out of range.
    """

    order: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    corrector: bool = True
    predict: Literal["x0", "v"] = "x0"
    sigma_data: float = 0.5

    default_calls: ClassVar[int | None] = 20

    def __post_init__(self) -> None:
        valid = self.variant in ("bh1", "bh2") and self.predict in ("x0", "v")
        if self.order not in (1, 2, 3) or not valid or not 0 < self.sigma_data < math.inf:
            raise ValueError(
                "Expected order from 1 to 3, variant 'bh1' or 'bh2', predict 'x0' "
                f"or 'v' and sigma_data above 0, got {self}. Fix: use the defaults."
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
        if self.predict == "x0":
            return None
        return spaced_grid(schedule, steps, "optimal", first=first, last=last, scale=scale)

    def init(self, steps: int) -> State:
        return (), None

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        past, step_start = state
        prediction = denoise(x, now)
        newest = (
            now,
            prediction.x0 if self.predict == "x0" else velocity(prediction, now, self.sigma_data),
        )
        if self.corrector and step_start is not None:
            x = self._advance(*step_start, now, (*past, newest))
        history = (newest, *past)[: self.order]
        if self.predict == "x0" and now.alpha == 0:
            # log-SNR is infinite: no polynomial passes through this level
            return self._advance(x, now, to, history), ((), None)
        return self._advance(x, now, to, history), (history, (x, now))

    def _advance(self, x: Tensor, now: Level, to: Level, history: History) -> Tensor:
        """Returns x at level `to`, by the polynomial through predictions; the first is at `now`."""
        levels, values = zip(*history, strict=True)
        if self.predict == "v":
            return combine((x, *values), v_factors(levels, now, to, self.sigma_data))
        factors = x0_factors(levels, now, to)
        if len(values) == 2 and not to.is_end:
            h = (to.log_snr - now.log_snr) / 2
            slope = 0.5 * (1.0 if self.variant == "bh2" else -h / math.expm1(-h))
            second = slope * (to.log_snr - now.log_snr) / (levels[1].log_snr - now.log_snr)
            gain = sum(factors[1:])
            factors = (factors[0], gain * (1 - second), gain * second)
        return combine((x, *values), factors)
