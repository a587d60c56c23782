from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..denoiser import Denoiser
from ..level import Level, Noise, Prediction, move
from .base import Sampler
from .quadrature import mean_weights

History = tuple[tuple[float, Tensor], ...]  # (log-SNR, prediction), newest first


@dataclass(frozen=True)
class DPMSolver(Sampler[History]):
    """Multistep DPM-Solver++ and DPM-Solver, ODE and SDE (Lu et al. 2022a, b). One network call a step.

    The prediction is averaged over the step as the polynomial in log-SNR through the last ones, under the density that
    the exact solution of the linear part gives, so every order is true: the third order as usually published drops a
    factor of 2 and is of second order. The first steps have lower order.

    Args:
        order: Number of predictions, 1 (DDIM) to 3; the step to sigma = 0 takes one.
        predict: Average the clean data ('x0', DPM-Solver++) or the noise ('eps', DPM-Solver).
        eta: Share of fresh noise, 0 (the ODE) to 1 (the reverse SDE); above 0 with predict='x0' only.
        weights: 'exact', or 'midpoint' as published for order 2: the polynomial's value in the middle of the step.
    """

    order: int = 2
    predict: Literal["x0", "eps"] = "x0"
    eta: float = 0.0
    weights: Literal["exact", "midpoint"] = "exact"

    def __post_init__(self) -> None:
        known = self.predict in ("x0", "eps") and self.weights in ("exact", "midpoint")
        if not known or self.order not in (1, 2, 3) or (self.order == 3 and self.weights == "midpoint"):
            raise ValueError(f"needs order 1 to 3 (2 with midpoint weights), predict x0 or eps; got {self}")
        if not 0 <= self.eta <= 1 or (self.eta and self.predict == "eps"):
            raise ValueError(f"eta must lie in [0, 1], above 0 with predict='x0' only; got {self}")

    def init(self, steps: int) -> History:
        return ()

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        prediction = denoise(x, now)
        value = prediction.x0 if self.predict == "x0" else prediction.eps
        history = ((now.log_snr, value), *state)[: self.order]
        h = (to.log_snr - now.log_snr) / 2  # in ln(alpha / sigma)
        tau = to.sigma * math.sqrt(-math.expm1(-2 * self.eta * h)) if self.eta else 0.0
        if len(history) > 1 and math.isfinite(h):
            z = 0.0 if self.weights == "midpoint" else (1 + self.eta) * h if self.predict == "x0" else -h
            weights = mean_weights(tuple((node - now.log_snr) / (2 * h) for node, _ in history), z)
            mean_of = Prediction.from_x0 if self.predict == "x0" else Prediction.from_eps
            prediction = mean_of([past for _, past in history], x, now, weights)
        kept = history[: self.order - 1] if math.isfinite(now.log_snr) else ()  # no polynomial goes through infinity
        return move(prediction, to, tau, noise(x) if tau else None), kept
