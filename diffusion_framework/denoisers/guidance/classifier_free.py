"""Classifier-free guidance (Ho & Salimans 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ...process.level import Level, Prediction
from ..base import Denoiser
from ..network import NetworkDenoiser, predict_together
from .base import Guidance


@final
@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """Leads samples away from what the network makes without its conditions.

    Both halves come from one call of the network, on a doubled batch; each remembers its own
    estimates.

    Args:
        scale: 1 is no guidance, 0 leaves the conditions out, above 1 guides; `w + 1` of the paper.
        conditions: Names of the conditions that the free half is not told; None is all that
            training drops.

    Raises:
        ValueError: a scale that is not finite.
    """

    scale: float = 2.0
    conditions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(
                f"Expected a finite scale of guidance, got {self.scale}. "
                "Fix: a number from 1 to 10."
            )

    def bind(self, denoise: NetworkDenoiser) -> Denoiser:
        """The guided denoiser; the same one for a scale of 1."""
        if self.scale == 1:
            return denoise
        return _GuidedDenoiser(denoise, denoise.without(self.conditions), self.scale)


def as_guidance(value: float | Guidance | None) -> Guidance:
    """The guidance that a value stands for: a number is a scale, None is no guidance."""
    return value if isinstance(value, Guidance) else ClassifierFree(1.0 if value is None else value)


def extrapolate(given: Prediction, free: Prediction, scale: float) -> Prediction:
    """`free + scale (given - free)`, for two predictions of the same x at one level.

    Args:
        given: With the condition; a learned variance is this one's.
        free: Without it.
        scale: 1 gives the first, 0 the second.
    """
    shares = ((scale, given), (1 - scale, free))
    x0_weights = tuple(share * w for share, prediction in shares for w in prediction.x0_weights)
    eps_weights = tuple(share * w for share, prediction in shares for w in prediction.eps_weights)
    tensors = (*given.tensors, *free.tensors)
    return Prediction.of(tensors, x0_weights, eps_weights, given.variance)


@final
class _GuidedDenoiser:
    """Two denoisers asked together, and the point on the line through both."""

    def __init__(self, given: NetworkDenoiser, free: NetworkDenoiser, scale: float) -> None:
        self.given, self.free, self.scale = given, free, scale
        self.schedule = given.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        given, free = predict_together((self.given, self.free), x, at, to)
        return extrapolate(given, free, self.scale)
