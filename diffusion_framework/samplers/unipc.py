from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine
from .base import Sampler
from .multistep import v_factors, velocity, x0_factors

History = tuple[tuple[Level, Tensor], ...]  # predictions, newest first
State = tuple[History, tuple[Tensor, Level] | None]  # and where the last step started, if it is to be corrected


@dataclass(frozen=True)
class UniPC(Sampler[State]):
    """Unified predictor-corrector (Zhao et al. 2023). One network call a step.

    When the prediction at the end of a step is known, that step is taken again with it: an order more at no cost.
    With predict='v' the same is done for the velocity in the angle between data and noise, where the ODE is smoother
    still: the most accurate sampler here with an exact denoiser, on steps even in time or of optimal spacing. A step in
    angle that is many times the last, as in few steps even in log-SNR, magnifies a network's errors: take order 2 or
    more steps there. B(h) has no place in it.

    Args:
        order: Number of predictions of the predictor, 1 to 3; the corrector has one more.
        variant: B(h) = h for 'bh1', exp(h) - 1 for 'bh2'. It only matters where the paper sets a coefficient to 1/2
            rather than solve for it: with two predictions of x0.
        corrector: Whether to correct; without, predict='x0' is a multistep DPM-Solver++.
        predict: What is averaged over a step: the clean data ('x0', as published) or the velocity ('v').
        sigma_data: Standard deviation of the data, about, for predict='v'.
    """

    order: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    corrector: bool = True
    predict: Literal["x0", "v"] = "x0"
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        known = self.variant in ("bh1", "bh2") and self.predict in ("x0", "v")
        if self.order not in (1, 2, 3) or not known or not 0 < self.sigma_data < math.inf:
            raise ValueError(
                f"UniPC has orders 1 to 3, variants bh1 and bh2, predict x0 or v, sigma_data above 0; got {self}"
            )

    def init(self, steps: int) -> State:
        return (), None

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        past, started = state
        prediction = denoise(x, now)
        newest = (now, prediction.x0 if self.predict == "x0" else velocity(prediction, now, self.sigma_data))
        if self.corrector and started is not None:
            x = self._advance(*started, now, (*past, newest))
        history = (newest, *past)[: self.order]
        if self.predict == "x0" and now.alpha == 0:  # log-SNR is infinite: no polynomial goes through there
            return self._advance(x, now, to, history), ((), None)
        return self._advance(x, now, to, history), (history, (x, now))

    def _advance(self, x: Tensor, now: Level, to: Level, history: History) -> Tensor:
        """One step with the polynomial through these predictions, the first of which is at `now`."""
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
