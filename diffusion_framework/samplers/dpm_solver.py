from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine, move
from .base import Sampler
from .multistep import eps_factors, x0_factors

History = tuple[tuple[Level, Tensor], ...]  # predictions, newest first


@dataclass(frozen=True)
class DPMSolver(Sampler[History]):
    """Multistep DPM-Solver++ and DPM-Solver, ODE and SDE (Lu et al. 2022a, b). One network call a step.

    The prediction is averaged over the step as the polynomial in log-SNR through the last ones, under the density that
    the exact solution of the linear part gives, so every order is true: the third order as usually published drops a
    factor of 2 and is of second order. The first steps have lower order.

    Args:
        order: Number of predictions, 1 (DDIM) to 3.
        predict: Average the clean data ('x0', DPM-Solver++) or the noise ('eps', DPM-Solver).
        eta: Share of fresh noise, 0 (the ODE) to 1 (the reverse SDE). With predict='eps' long steps add far too much
            of it (Lu et al. 2022b advise x0).
        weights: 'exact', or 'midpoint' as published for order 2: the polynomial's value in the middle of the step, and
            a step to sigma = 0 by the last prediction alone.
    """

    order: int = 2
    predict: Literal["x0", "eps"] = "x0"
    eta: float = 0.0
    weights: Literal["exact", "midpoint"] = "exact"

    def __post_init__(self) -> None:
        known = self.predict in ("x0", "eps") and self.weights in ("exact", "midpoint")
        if not known or self.order not in (1, 2, 3) or (self.order == 3 and self.weights == "midpoint"):
            raise ValueError(f"needs order 1 to 3 (2 with midpoint weights), predict x0 or eps; got {self}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], from the ODE to the reverse SDE; got {self.eta}")

    def init(self, steps: int) -> History:
        return ()

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        prediction = denoise(x, now)
        if now.alpha == 0:  # log-SNR is infinite: no polynomial goes through there
            tau = to.sigma * math.sqrt(self.eta)
            return move(prediction, to, tau, noise(x) if tau else None), ()
        value = prediction.x0 if self.predict == "x0" else prediction.eps
        history = ((now, value), *state)[: self.order]
        levels, values = zip(*history, strict=True)
        eta = 0.0 if to.is_end else self.eta
        factors = (x0_factors if self.predict == "x0" else eps_factors)(
            levels, now, to, eta, self.weights == "midpoint"
        )
        x = combine((x, *values), factors)
        if eta:
            h = (to.log_snr - now.log_snr) / 2  # in ln(alpha / sigma)
            growth = -math.expm1(-2 * eta * h) if self.predict == "x0" else eta * math.expm1(2 * h)
            x.add_(noise(x), alpha=to.sigma * math.sqrt(growth))
        return x, history[: self.order - 1]
