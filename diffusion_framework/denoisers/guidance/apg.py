"""Adaptive projected guidance (Sadat et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...process.level import Level, Prediction, expand_to
from ..network import NetworkDenoiser
from .base import Rule
from .modifier import ModifiedRule, Modifier


@final
@dataclass(frozen=True)
class APG(Modifier):
    """Adaptive projected guidance: large scales without saturated colours (Sadat et al. 2024).

    The update `D_guided - D` is split into a part parallel to D, which mostly adds contrast, and
    the orthogonal rest. The result is `D + orthogonal + eta parallel`. Before that, `momentum`
    times the last update is added, and the norm is limited. Each sample has its own norms and
    momentum. With eta = 1, no momentum and no limit, the inner guidance is unchanged.

    Args:
        scale: Scale of classifier-free guidance as the inner guidance, instead of `inner`.
        inner: Guidance to project; None for classifier-free guidance of `scale`, or of 2 without.
        eta: Share of the parallel part that is kept.
        momentum: Weight of the last update, in (-1, 1), below 0 in the paper; 0 for none. Each
            call of the network counts as an update.
        max_norm: Largest Euclidean norm of the update of one sample, above 0: the paper's r times
            (scale - 1). None for no limit.

    Raises:
        ValueError: an option out of range, or both a scale and an inner guidance.
    """

    eta: float = 0.0
    momentum: float = -0.5
    max_norm: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = math.inf if self.max_norm is None else self.max_norm
        if not (math.isfinite(self.eta) and -1 < self.momentum < 1 and limit > 0):
            raise ValueError(
                "Expected a finite eta, momentum in (-1, 1) and max_norm above 0, got "
                f"eta={self.eta}, momentum={self.momentum}, max_norm={self.max_norm}. "
                "Fix: leave them at their defaults."
            )

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        return _Projected(self.changed.begin(denoise), self)


@final
class _Projected(ModifiedRule):
    """Rule with the momentum of one trajectory, [batch, ...]; None before the first update."""

    def __init__(self, inner: Rule, options: APG) -> None:
        super().__init__(inner)
        self.options = options
        self.average: Tensor | None = None

    def change(self, plain: Prediction, guided: Prediction, x: Tensor, at: Level) -> Prediction:
        options, given = self.options, plain.x0
        update = guided.x0 - given
        if options.momentum:
            if self.average is not None:
                update = update + options.momentum * self.average
            self.average = update.detach()
        if options.max_norm is not None:
            norm = torch.linalg.vector_norm(update.flatten(1), dim=1)
            update = update * expand_to((options.max_norm / norm).clamp(max=1), x)
        parallel = _projected(update, given)
        x0 = given + (update - parallel) + options.eta * parallel
        return Prediction.from_x0(x0, x, at, guided.variance)


def _projected(update: Tensor, given: Tensor) -> Tensor:
    """Returns the part of each update [batch, ...] that is parallel to the given data."""
    update_flat, given_flat = update.flatten(1), given.flatten(1)
    square = given_flat.square().sum(1)
    product = (update_flat * given_flat).sum(1)
    return given * expand_to(torch.where(square > 0, product / square, 0.0), given)
