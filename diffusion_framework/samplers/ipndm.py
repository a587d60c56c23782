from __future__ import annotations

from dataclasses import dataclass

from ..process.level import Level
from .lms import AdamsBashforth
from .multistep import Levels

_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams–Bashforth weights of predictions, the newest first, by their number."""


@dataclass(frozen=True)
class IPNDM(AdamsBashforth):
    """Adams–Bashforth method in sigma / alpha with constant weights (Zhang & Chen 2023, iPNDM).

    The weights are those of even steps, whatever the grid. On uneven grids they are not of the
    order of `LMS`, which computes the weights of the grid. They are smaller, so errors of the
    network grow less. Each step takes one network call.

    Args:
        order: Number of predictions used, from 1 (Euler, DDIM) to 4.

    Raises:
        ValueError: If `order` is out of range.
    """

    def factors(self, levels: Levels, now: Level, to: Level) -> tuple[float, ...]:
        kept = to.alpha / now.alpha
        length = to.sigma - kept * now.sigma
        return kept, *(length * weight for weight in _WEIGHTS[len(levels) - 1])
