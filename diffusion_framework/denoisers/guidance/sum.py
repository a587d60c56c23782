"""Several kinds of guidance at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ...process.level import Level, Prediction
from ..network import NetworkDenoiser
from .base import Guidance, Predictions, Rule, weighted


@final
@dataclass(frozen=True)
class Sum(Guidance):
    """Several kinds of guidance at once, whose updates are added.

    The result is `D + (D_1 - D) + (D_2 - D) + ...`, where D_i is the prediction of the i-th kind
    of guidance. All of them share the calls of the networks.

    Args:
        members: Kinds of guidance, such as `(ClassifierFree(2.0), Autoguidance(weaker, 1.5))`.

    Raises:
        ValueError: no members.
    """

    members: tuple[Guidance, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError(
                "Expected members of a sum of guidance, got none. Fix: name one or more."
            )

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        return _Added(denoise, [member.begin(denoise) for member in self.members])


@final
class _Added(Rule):
    def __init__(self, plain: NetworkDenoiser, rules: Sequence[Rule]) -> None:
        super().__init__(plain)
        self.rules = rules

    def asks(self, at: Level) -> list[NetworkDenoiser]:
        return [denoise for rule in self.rules for denoise in rule.asks(at)]

    def differentiates(self, at: Level) -> bool:
        return any(rule.differentiates(at) for rule in self.rules)

    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        plain = predictions[self.plain]
        guided = [rule.combine(predictions, x, at) for rule in self.rules]
        changed = [each for each in guided if each is not plain]
        if not changed:
            return plain
        if len(changed) == 1:
            return changed[0]
        shares = [(1.0 - len(changed), plain), *((1.0, each) for each in changed)]
        return weighted(shares, plain.variance)
