from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine, move
from .base import Sampler
from .multistep import Levels, sigma_factors

History = tuple[tuple[Level, Tensor], ...]
"""Levels with their predictions of noise [batch, ...], newest first."""


@dataclass(frozen=True)
class AdamsBashforth(Sampler[History], ABC):
    """Multistep method in sigma / alpha, whose steps weight the last noise predictions.

    Each step takes one network call. The first steps use the predictions available.

    Args:
        order: Number of predictions used, from 1 (Euler, DDIM) to 4.

    Raises:
        ValueError: If `order` is out of range.
    """

    order: int = 4

    default_calls: ClassVar[int | None] = 20

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 4:
            raise ValueError(
                f"Expected order from 1 to 4, got {self.order}. Fix: use the default 4."
            )

    def init(self, steps: int) -> History:
        return ()

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        prediction = denoise(x, now)
        if now.alpha == 0:  # sigma / alpha is infinite: the step is infinitely long
            return move(prediction, to), ()
        history = ((now, prediction.eps), *state)[: self.order]
        levels, eps = zip(*history, strict=True)
        return combine((x, *eps), self.factors(levels, now, to)), history[: self.order - 1]

    @abstractmethod
    def factors(self, levels: Levels, now: Level, to: Level) -> tuple[float, ...]:
        """Returns the factors of x and of the noise predictions at `levels`, newest first."""


@dataclass(frozen=True)
class LMS(AdamsBashforth):
    """Linear multistep method in sigma / alpha (Adams–Bashforth; PLMS, Liu et al. 2022).

    The polynomial in sigma / alpha through the last noise predictions is averaged exactly over the
    step, without numerical integration. Each step takes one network call. The first steps use the
    predictions available.

    Args:
        order: Number of predictions used, from 1 (Euler, DDIM) to 4.

    Raises:
        ValueError: If `order` is out of range.
    """

    def factors(self, levels: Levels, now: Level, to: Level) -> tuple[float, ...]:
        return sigma_factors(levels, now, to)
