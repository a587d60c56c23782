from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine, move
from .base import Sampler
from .multistep import eps_factors, x0_factors

History = tuple[tuple[Level, Tensor], ...]
"""Levels with their predictions [batch, ...], newest first."""


@dataclass(frozen=True)
class DPMSolver(Sampler[History]):
    """Multistep DPM-Solver and DPM-Solver++, for the ODE and the SDE (Lu et al. 2022a, 2022b).

    It takes one network call per step. The polynomial in log-SNR through the last predictions is
    averaged over the step, under the density from the exact solution of the linear part. Each order
    is therefore the stated one, while the usual formula of the third order drops a factor of 2 and
    is of second order. The first steps have lower order, because fewer predictions exist.

    Args:
        order: Number of predictions used, from 1 (DDIM) to 3.
        predict: Quantity that is averaged: the clean data ('x0', DPM-Solver++) or the noise ('eps',
            DPM-Solver).
        eta: Share of fresh noise, from 0 (the ODE) to 1 (the reverse SDE). With predict='eps', long
            steps add far too much noise; Lu et al. 2022b recommend 'x0'.
        weights: Method of averaging over a step: 'exact' integrates the polynomial; 'midpoint', as
            published for order 2, takes its value in the middle of the step. With 'midpoint', a
            step to sigma = 0 uses only the last prediction.

    Raises:
        ValueError: If an option is out of range.
    """

    order: int = 2
    predict: Literal["x0", "eps"] = "x0"
    eta: float = 0.0
    weights: Literal["exact", "midpoint"] = "exact"

    default_calls: ClassVar[int | None] = 20

    def __post_init__(self) -> None:
        valid = self.predict in ("x0", "eps") and self.weights in ("exact", "midpoint")
        if (
            not valid
            or self.order not in (1, 2, 3)
            or (self.order == 3 and self.weights == "midpoint")
        ):
            raise ValueError(
                "Expected order 1 to 3 (1 or 2 with weights='midpoint'), predict 'x0' or "
                f"'eps' and weights 'exact' or 'midpoint', got {self}. Fix: use the defaults."
            )
        if not 0 <= self.eta <= 1:
            raise ValueError(
                f"Expected eta in [0, 1], from the ODE to the reverse SDE, got {self.eta}. "
                "Fix: use the default 0, the ODE."
            )

    def init(self, steps: int) -> History:
        return ()

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        prediction = denoise(x, now)
        if now.alpha == 0:  # log-SNR is infinite: no polynomial passes through this level
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
            h = (to.log_snr - now.log_snr) / 2
            growth = -math.expm1(-2 * eta * h) if self.predict == "x0" else eta * math.expm1(2 * h)
            x.add_(noise(x), alpha=to.sigma * math.sqrt(growth))
        return x, history[: self.order - 1]
