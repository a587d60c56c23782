"""Network outputs that only other libraries' networks have."""

from __future__ import annotations

from dataclasses import dataclass

from ..level import Level, Scalar
from ..objectives import Eps, Objective


@dataclass(frozen=True)
class Score(Objective):
    """The network predicts the score, `-eps / sigma` (Song et al. 2021b)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1 / at.sigma

    def gain(self, at: Level) -> Scalar:
        return at.sigma * Eps().gain(at)


@dataclass(frozen=True)
class NegatedEps(Objective):
    """The network predicts `-eps`, the score in units of 1 / sigma."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1.0

    def gain(self, at: Level) -> Scalar:
        return Eps().gain(at)
