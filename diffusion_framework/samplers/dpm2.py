from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction, move
from .base import Sampler
from .multistep import is_long


@dataclass(frozen=True)
class DPM2(Sampler[None]):
    """Midpoint method in sigma / alpha, with the geometric midpoint (DPM-Solver-2).

    It is described by Karras et al. 2022. It is of second order, with two network calls per step. A
    step to sigma = 0 takes only one call. So does a step over more than a factor of 10 in sigma /
    alpha, as in `Heun`.
    """

    default_calls: ClassVar[int | None] = 20

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        prediction = denoise(x, now)
        if is_long(now, to):
            return move(prediction, to), None
        middle = denoise.schedule.at_log_snr((now.log_snr + to.log_snr) / 2)
        eps = denoise(move(prediction, middle), middle).eps
        return move(Prediction.from_eps(eps, x, now), to), None
