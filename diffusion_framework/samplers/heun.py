from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine, move
from .base import Sampler
from .multistep import is_long, sigma_factors


@dataclass(frozen=True)
class Heun(Sampler[None]):
    """Heun's method in sigma / alpha (Karras et al. 2022, Alg. 1).

    It is of second order, with two network calls per step. A step to sigma = 0 takes only one call.
    So does a step over more than a factor of 10 in sigma / alpha, such as the first from t = 1. In
    these steps, the mean of the predictions at both ends would magnify their difference.
    """

    default_calls: ClassVar[int | None] = 20

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        prediction = denoise(x, now)
        euler = move(prediction, to)
        if is_long(now, to):
            return euler, None
        factors = sigma_factors((now, to), now, to)
        return combine((x, prediction.eps, denoise(euler, to).eps), factors), None
