from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..denoiser import Denoiser
from ..level import Level, Noise, Prediction, move
from .base import Sampler


@dataclass(frozen=True)
class Heun(Sampler[None]):
    """Heun's method in sigma / alpha: second order, two network calls a step (Karras et al. 2022, Alg. 1).

    The last step, to sigma = 0, takes one call. Starts from alpha > 0 only: sigma / alpha must be finite.
    """

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        here = denoise(x, now)
        there = move(here, to)
        if to.is_end:
            return there, None
        mean = (here.eps + denoise(there, to).eps) / 2
        return move(Prediction.from_eps(mean, x, now), to), None
