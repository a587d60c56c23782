from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine, move
from .base import Sampler
from .multistep import sigma_factors

History = tuple[tuple[Level, Tensor], ...]  # noise, newest first


@dataclass(frozen=True)
class LMS(Sampler[History]):
    """Linear multistep method in sigma / alpha (Adams–Bashforth; Liu et al. 2022, PLMS).

    The noise is averaged over the step as the polynomial in sigma / alpha through the last predictions: exactly, not by
    numerical integration. One network call a step; the first steps have as many predictions as there are.

    Args:
        order: Number of predictions, from 1 (Euler, DDIM) to 4.
    """

    order: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 4:
            raise ValueError(f"LMS has orders 1 to 4; got {self.order}")

    def init(self, steps: int) -> History:
        return ()

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        prediction = denoise(x, now)
        if now.alpha == 0:  # sigma / alpha is infinite: no polynomial goes through there
            return move(prediction, to), ()
        history = ((now, prediction.eps), *state)[: self.order]
        levels, eps = zip(*history, strict=True)
        return combine((x, *eps), sigma_factors(levels, now, to)), history[: self.order - 1]
