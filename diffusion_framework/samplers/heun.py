from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine, move
from .base import Sampler
from .multistep import sigma_factors


@dataclass(frozen=True)
class Heun(Sampler[None]):
    """Heun's method in sigma / alpha: second order, two network calls a step (Karras et al. 2022, Alg. 1).

    A step to sigma = 0 takes one call, and so does one over more than a factor of 10 in sigma / alpha, such as the
    first from t = 1: the mean of its two ends says nothing of what lies between, and would magnify their difference.
    """

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        here = denoise(x, now)
        there = move(here, to)
        if abs(to.log_snr - now.log_snr) > 2 * math.log(10):
            return there, None
        return combine((x, here.eps, denoise(there, to).eps), sigma_factors((now, to), now, to)), None
