from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction, combine, move
from .base import Sampler
from .multistep import eps_factors, is_long, x0_factors


@dataclass(frozen=True)
class SinglestepDPM(Sampler[None]):
    """Singlestep DPM-Solver and DPM-Solver++, with as many network calls per step as the order.

    It follows Lu et al. 2022a, 2022b. Inside a step, the network is called at intermediate
    log-SNRs: the midpoint for order 2, one and two thirds for order 3. Each is reached with the
    first and the last prediction. The step to sigma = 0 takes one call. With predict='eps', so does
    a step over more than a factor of 10 in sigma / alpha, as in `Heun`.

    Args:
        order: Order and network calls per step, from 1 (DDIM) to 3.
        predict: Quantity that is averaged: the clean data ('x0', DPM-Solver++) or the noise ('eps',
            DPM-Solver).

    Raises:
        ValueError: If an option is out of range.
    """

    order: int = 3
    predict: Literal["x0", "eps"] = "x0"

    default_calls: ClassVar[int | None] = 20

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3) or self.predict not in ("x0", "eps"):
            raise ValueError(
                f"Expected order from 1 to 3 and predict 'x0' or 'eps', got {self}. "
                "Fix: leave these options at their defaults."
            )

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        span = to.log_snr - now.log_snr
        first = denoise(x, now)
        if not math.isfinite(span) or (self.predict == "eps" and is_long(now, to)):
            return move(first, to), None
        history = [(now, self._value(first))]
        for stage in range(1, self.order):
            at = denoise.schedule.at_log_snr(now.log_snr + stage / self.order * span)
            last = denoise(self._advance(x, now, at, history), at)
            history = [history[0], (at, self._value(last))]
        return self._advance(x, now, to, history), None

    def _value(self, prediction: Prediction) -> Tensor:
        return prediction.x0 if self.predict == "x0" else prediction.eps

    def _advance(
        self, x: Tensor, now: Level, to: Level, history: list[tuple[Level, Tensor]]
    ) -> Tensor:
        """Returns x at level `to`, from the line through the predictions."""
        levels, values = zip(*history, strict=True)
        return combine(
            (x, *values), (x0_factors if self.predict == "x0" else eps_factors)(levels, now, to)
        )
