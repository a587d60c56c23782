"""Base class of guidance that changes another guidance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ...process.level import Level, Prediction
from ..network import NetworkDenoiser
from .base import Guidance, Predictions, Rule, check_scale
from .classifier_free import ClassifierFree

DEFAULT_SCALE = ClassifierFree().scale


@dataclass(frozen=True)
class Modifier(Guidance, ABC):
    """Guidance that changes another guidance, `inner`.

    Args:
        scale: Scale of classifier-free guidance as the inner guidance, instead of `inner`.
        inner: Guidance to change; None for classifier-free guidance of `scale`, or of 2 without.

    Raises:
        ValueError: both a scale and an inner guidance, or a scale that is not finite.
    """

    scale: float | None = None
    inner: Guidance | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and self.inner is not None:
            raise ValueError(
                f"Expected scale or inner of {type(self).__name__}, got both. "
                "Fix: leave scale out, and set the scale of inner."
            )
        check_scale(1.0 if self.scale is None else self.scale)

    @property
    def changed(self) -> Guidance:
        """The guidance that is changed."""
        if self.inner is not None:
            return self.inner
        return ClassifierFree(DEFAULT_SCALE if self.scale is None else self.scale)


class ModifiedRule(Rule, ABC):
    """Rule that changes the prediction of another rule of the same trajectory.

    Args:
        inner: The other rule.
    """

    def __init__(self, inner: Rule) -> None:
        super().__init__(inner.plain)
        self.inner = inner

    def asks(self, at: Level) -> Sequence[NetworkDenoiser]:
        return self.inner.asks(at)

    def differentiates(self, at: Level) -> bool:
        return self.inner.differentiates(at)

    @final
    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        plain, guided = predictions[self.plain], self.inner.combine(predictions, x, at)
        return plain if guided is plain else self.change(plain, guided, x, at)

    @abstractmethod
    def change(self, plain: Prediction, guided: Prediction, x: Tensor, at: Level) -> Prediction:
        """Returns the changed prediction.

        Args:
            plain: Prediction without guidance.
            guided: Another prediction, that of the inner rule.
            x: Samples [batch, ...] at level `at`.
            at: Level of floats.
        """
