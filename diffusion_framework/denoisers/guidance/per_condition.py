"""Classifier-free guidance with a scale for each condition (Brooks et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, final

from torch import Tensor

from ...process.level import Level, Prediction
from ..network import NetworkDenoiser
from .base import Guidance, Predictions, Rule, check_scale, weighted


@final
@dataclass(frozen=True)
class PerCondition(Guidance):
    """Classifier-free guidance with a scale for each condition.

    With scales s1, ..., sn, the guided data is `D0 + s1 (D1 - D0) + ... + sn (Dn - D(n-1))`, where
    Di knows the first i of these conditions (Brooks et al. 2023, eq. 3). Conditions that are not
    named stay given. Equal scales are those of `ClassifierFree`, and 1 everywhere is no guidance.
    Each further scale that differs costs one more prediction, in the same call of the network.

    Args:
        scales: Scales by the name of their condition, in the order in which conditions are added.
        negative: Values that take the place of "none", as in `ClassifierFree`.

    Raises:
        ValueError: no scale, or one that is not finite.
    """

    scales: dict[str, float] = field(hash=False)
    negative: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError(
                "Expected a scale for a condition, got none. Fix: give scales={'labels': 2.0}."
            )
        for scale in self.scales.values():
            check_scale(scale)
        if unused := sorted(set(self.negative or {}) - set(self.scales)):
            raise ValueError(
                f"Expected negative values for conditions with a scale, {', '.join(self.scales)}, "
                f"got one for {unused[0]!r}. Fix: give it a scale."
            )

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        names, told = [*self.scales], denoise.conditions
        bounds = [1.0, *self.scales.values(), 0.0]
        weights = [low - high for low, high in pairwise(bounds)]

        def encoded() -> list[Any]:
            return [told.without(names[i:], self.negative) for i in range(len(names))]

        without = [NetworkDenoiser(denoise.parts, each) for each in self.once(told, encoded)]
        shares = zip(weights, [*without, denoise], strict=True)
        return _Weighted(denoise, [(weight, each) for weight, each in shares if weight])


@final
class _Weighted(Rule):
    """Rule of a weighted sum of denoisers.

    Args:
        plain: Denoiser under the conditions of the trajectory.
        shares: Weights that are not 0, and their denoisers.
    """

    def __init__(self, plain: NetworkDenoiser, shares: list[tuple[float, NetworkDenoiser]]) -> None:
        super().__init__(plain)
        self.shares = shares

    def asks(self, at: Level) -> list[NetworkDenoiser]:
        return [denoise for _, denoise in self.shares]

    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        shares = [(weight, predictions[denoise]) for weight, denoise in self.shares]
        if len(shares) == 1:  # its weight is 1
            return shares[0][1]
        return weighted(shares, predictions[self.plain].variance)
