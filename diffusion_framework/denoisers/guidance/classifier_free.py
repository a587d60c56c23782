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
    """Extrapolation from the unconditional prediction through the conditional one.

    Both predictions come from one call of the network on a doubled batch. Each has its own memory
    for self-conditioning.

    Args:
        scale: Guidance scale, `w + 1` of the paper: 0 ignores the conditions, 1 samples without
            guidance, more than 1 guides towards the conditions.
        conditions: Names of the conditions that the unconditional prediction leaves out; None for
            all that were trained with dropout.

    Raises:
        ValueError: a scale that is not finite.
    """

    scale: float = 2.0
    conditions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(
                f"Expected a finite guidance scale, got {self.scale}. "
                "Fix: take a number from 1 to 10."
            )

    def bind(self, denoise: NetworkDenoiser) -> Denoiser:
        """Returns the guided denoiser; for a scale of 1, `denoise` itself."""
        if self.scale == 1:
            return denoise
        return _GuidedDenoiser(denoise, denoise.without(self.conditions), self.scale)


def as_guidance(value: float | Guidance | None) -> Guidance:
    """Converts a scale to `ClassifierFree`; None means a scale of 1, guidance is returned as is."""
    if isinstance(value, Guidance):
        return value
    try:
        return ClassifierFree(1.0 if value is None else float(value))
    except (TypeError, ValueError) as error:
        if isinstance(value, int | float):
            raise  # a number out of range
        raise ValueError(
            f"Expected guidance as a number or a Guidance, got {value!r:.60}. "
            "Fix: give the scale, such as 2.0."
        ) from error


def extrapolate(given: Prediction, free: Prediction, scale: float) -> Prediction:
    """Returns `free + scale (given - free)` for two predictions of the same x at one level.

    Args:
        given: Conditional prediction, which also gives the learned variance.
        free: Unconditional prediction.
        scale: Guidance scale; 1 returns `given`, 0 returns `free`.
    """
    shares = ((scale, given), (1 - scale, free))
    x0_weights = tuple(share * w for share, prediction in shares for w in prediction.x0_weights)
    eps_weights = tuple(share * w for share, prediction in shares for w in prediction.eps_weights)
    tensors = (*given.tensors, *free.tensors)
    return Prediction.of(tensors, x0_weights, eps_weights, given.variance)


@final
class _GuidedDenoiser:
    """Denoiser that combines a conditional and an unconditional one of the same network."""

    def __init__(self, given: NetworkDenoiser, free: NetworkDenoiser, scale: float) -> None:
        self.given, self.free, self.scale = given, free, scale
        self.schedule = given.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        given, free = predict_together((self.given, self.free), x, at, to)
        return extrapolate(given, free, self.scale)
