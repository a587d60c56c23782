from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, combine, move
from .base import Sampler

_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams–Bashforth weights of predictions, the newest first, by their number."""


@dataclass(frozen=True)
class IPNDM(Sampler[tuple[Tensor, ...]]):
    """Adams–Bashforth method in sigma / alpha with constant weights (Zhang & Chen 2023, iPNDM).

    The weights are those of even steps, whatever the grid. On uneven grids they are not of the
    order of `LMS`, which computes the weights of the grid. They are smaller, so errors of the
    network grow less. Each step takes one network call.

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

    def init(self, steps: int) -> tuple[Tensor, ...]:
        return ()

    def step(
        self,
        denoise: Denoiser,
        x: Tensor,
        now: Level,
        to: Level,
        state: tuple[Tensor, ...],
        noise: Noise,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        prediction = denoise(x, now)
        if now.alpha == 0:  # the step is infinitely long in sigma / alpha
            return move(prediction, to), ()
        history = (prediction.eps, *state)[: self.order]
        kept = to.alpha / now.alpha
        length = to.sigma - kept * now.sigma
        factors = (length * weight for weight in _WEIGHTS[len(history) - 1])
        return combine((x, *history), (kept, *factors)), history[: self.order - 1]
