"""Classifier-free guidance (Ho & Salimans 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor

from ...process.level import Level, Prediction
from ..network import NetworkDenoiser
from .base import Guidance, Predictions, Rule, Unguided, check_scale, extrapolate


@final
@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """Extrapolation from the unconditional prediction through the conditional one.

    `D_free + scale (D - D_free)` (Ho & Salimans 2022). Both predictions come from one call of the
    network on a doubled batch. Each has its own memory for self-conditioning.

    Args:
        scale: Guidance scale, `w + 1` of the paper: 0 ignores the conditions, 1 samples without
            guidance, more than 1 guides towards the conditions.
        conditions: Names of the conditions that the unconditional prediction leaves out; None for
            all that were trained with dropout, and those of `negative`.
        negative: Values by the name of their condition that take the place of "none": samples are
            guided away from them. They need no dropout. A single value stands for the whole batch.

    Raises:
        ValueError: a scale that is not finite.
    """

    scale: float = 2.0
    conditions: tuple[str, ...] | None = None
    negative: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        if self.scale == 1:
            return Unguided(denoise)
        told = denoise.conditions
        without = self.once(told, lambda: told.without(self.conditions, self.negative))
        return Extrapolation(denoise, NetworkDenoiser(denoise.parts, without), self.scale)


@final
class Extrapolation(Rule):
    """Rule of the line from another denoiser through the plain one.

    Args:
        plain: Denoiser under the conditions of the trajectory.
        free: Denoiser from which the line starts.
        scale: Place on the line: 0 is `free`, 1 is `plain`.
    """

    def __init__(self, plain: NetworkDenoiser, free: NetworkDenoiser, scale: float) -> None:
        super().__init__(plain)
        self.free, self.scale = free, scale

    def asks(self, at: Level) -> tuple[NetworkDenoiser, ...]:
        return (self.free,)

    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        return extrapolate(predictions[self.plain], predictions[self.free], self.scale)
