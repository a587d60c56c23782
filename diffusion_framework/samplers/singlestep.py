from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..denoiser import Denoiser
from ..level import Level, Noise, Prediction, move
from .base import Sampler
from .quadrature import mean_weights


@dataclass(frozen=True)
class SinglestepDPM(Sampler[None]):
    """Singlestep DPM-Solver and DPM-Solver++: as many network calls a step as its order (Lu et al. 2022).

    Inside a step it looks at log-SNRs in between (half way; one and two thirds), each reached with the first prediction
    and the latest. The step to sigma = 0 takes one call.

    Args:
        order: 1 (DDIM) to 3.
        predict: Average the clean data ('x0', DPM-Solver++) or the noise ('eps', DPM-Solver).
    """

    order: int = 3
    predict: Literal["x0", "eps"] = "x0"

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3) or self.predict not in ("x0", "eps"):
            raise ValueError(f"SinglestepDPM has orders 1 to 3 and predicts x0 or eps; got {self}")

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        first = denoise(x, now)
        span = to.log_snr - now.log_snr
        values = [(0.0, first)]
        for stage in range(1, self.order if math.isfinite(span) else 1):
            part = stage / self.order
            at = denoise.schedule.at_log_snr(now.log_snr + part * span)
            values = [values[0], (part, denoise(self._reach(x, now, at, values, part * span / 2, part), at))]
        return self._reach(x, now, to, values, span / 2, 1.0), None

    def _reach(
        self, x: Tensor, now: Level, at: Level, values: list[tuple[float, Prediction]], h: float, part: float
    ) -> Tensor:
        """x at the level `part` of the step away, by the line through the predictions; h in ln(alpha / sigma)."""
        if len(values) == 1:
            return move(values[0][1], at)
        weights = mean_weights(tuple(node / part for node, _ in values), h if self.predict == "x0" else -h)
        if self.predict == "x0":
            return move(Prediction.from_x0([p.x0 for _, p in values], x, now, weights), at)
        return move(Prediction.from_eps([p.eps for _, p in values], x, now, weights), at)
