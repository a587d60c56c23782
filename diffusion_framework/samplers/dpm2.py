from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction, move
from .base import Sampler


@dataclass(frozen=True)
class DPM2(Sampler[None]):
    """The midpoint method in sigma / alpha, by way of the geometric midpoint (Karras et al. 2022, DPM-Solver-2).

    Second order, two network calls a step. A first step from alpha = 0 and the last, to sigma = 0, take one call.
    """

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        here = denoise(x, now)
        if to.is_end or now.alpha == 0:  # the middle of a step without signal has none either
            return move(here, to), None
        middle = denoise.schedule.at_log_snr((now.log_snr + to.log_snr) / 2)
        eps = denoise(move(here, middle), middle).eps
        return move(Prediction.from_eps(eps, x, now), to), None
