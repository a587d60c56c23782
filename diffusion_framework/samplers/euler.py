from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, move
from .base import Sampler


@dataclass(frozen=True)
class Euler(Sampler[None]):
    """Euler's method in sigma / alpha, which equals DDIM.

    It is Alg. 1 of Karras et al. 2022 without its correction.
    """

    default_calls: ClassVar[int | None] = 50

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        return move(denoise(x, now), to), None
