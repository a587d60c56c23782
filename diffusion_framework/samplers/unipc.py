from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..denoiser import Denoiser
from ..level import Level, Noise, Prediction, move
from .base import Sampler
from .quadrature import mean_weights

History = tuple[tuple[float, Tensor], ...]  # (log-SNR, clean data), newest first
State = tuple[History, tuple[Tensor, Level] | None]  # and where the last step started, if it is to be corrected


@dataclass(frozen=True)
class UniPC(Sampler[State]):
    """Unified predictor-corrector (Zhao et al. 2023), for the clean data. One network call a step.

    When the prediction at the end of a step is known, that step is taken again with it: an order more at no cost.
    B(h) only matters where the paper sets a coefficient to 1/2 rather than solve for it: with two predictions.

    Args:
        order: Number of predictions of the predictor, 1 to 3; the corrector has one more.
        variant: B(h) = h for 'bh1', exp(h) - 1 for 'bh2'.
        corrector: Whether to correct; without, a multistep DPM-Solver++.
    """

    order: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    corrector: bool = True

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3) or self.variant not in ("bh1", "bh2"):
            raise ValueError(f"UniPC has orders 1 to 3 and variants bh1 and bh2; got {self}")

    def init(self, steps: int) -> State:
        return (), None

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        past, started = state
        newest = (now.log_snr, denoise(x, now).x0)
        if self.corrector and started is not None:
            x = self._move(*started, now, (*past, newest))
        history = (newest, *past)[: self.order]
        last = (x, now) if math.isfinite(now.log_snr) and not to.is_end else None
        return self._move(x, now, to, history), (history if last else (), last)

    def _move(self, x: Tensor, now: Level, to: Level, values: History) -> Tensor:
        """One step with the polynomial through these predictions, the first of which is at `now`."""
        h = (to.log_snr - now.log_snr) / 2
        weights: tuple[float, ...] = (1.0,)
        if len(values) > 1 and math.isfinite(h):
            nodes = tuple((log_snr - now.log_snr) / (2 * h) for log_snr, _ in values)
            weights = mean_weights(nodes, h)
            if len(values) == 2:
                half = 0.5 * (1.0 if self.variant == "bh2" else -h / math.expm1(-h)) / nodes[1]
                weights = (1 - half, half)
        x0s = [value for _, value in values[: len(weights)]]
        return move(Prediction.from_x0(x0s, x, now, weights), to)
