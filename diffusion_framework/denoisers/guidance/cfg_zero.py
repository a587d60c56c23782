"""CFG-Zero* (Fan et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from ...process.level import Level, Prediction, expand_to
from ...process.objectives import Velocity
from ..network import NetworkDenoiser
from .base import Guidance, Predictions, Rule, Unguided, check_scale


@final
@dataclass(frozen=True)
class CFGZero(Guidance):
    """CFG-Zero*: classifier-free guidance whose unconditional part is fitted to the conditional.

    `s v_free + scale (v - s v_free)`, where `s = <v, v_free> / |v_free|²` for each sample (Fan et
    al. 2025). The velocity is `v = eps - x0`, that of the straight path; on other schedules, it is
    the velocity of x / (alpha + sigma), which lies on such a path.

    Args:
        scale: Guidance scale, as in `ClassifierFree`.
        zero_first: Whether the velocity is 0 at the first level of a trajectory, so that x stays as
            it is. The paper does so for models whose first steps are badly trained.
        conditions: Names of the conditions to leave out, as in `ClassifierFree`.
        negative: Values that take the place of "none", as in `ClassifierFree`.

    Raises:
        ValueError: a scale that is not finite.
    """

    scale: float = 2.0
    zero_first: bool = False
    conditions: tuple[str, ...] | None = None
    negative: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        if self.scale == 1 and not self.zero_first:
            return Unguided(denoise)
        told = denoise.conditions
        without = self.once(told, lambda: told.without(self.conditions, self.negative))
        return _Fitted(self, denoise, NetworkDenoiser(denoise.parts, without))


@final
class _Fitted(Rule):
    """Rule that knows the first level of its trajectory."""

    def __init__(self, options: CFGZero, plain: NetworkDenoiser, free: NetworkDenoiser) -> None:
        super().__init__(plain)
        self.options, self.free = options, free
        self.first: Level | None = None

    def asks(self, at: Level) -> tuple[NetworkDenoiser, ...]:
        return (self.free,)

    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        given, options = predictions[self.plain], self.options
        v, free = (predictions[denoise].sum(-1.0, 1.0) for denoise in (self.plain, self.free))
        square, product = free.square().flatten(1).sum(1), (v * free).flatten(1).sum(1)
        free = free * expand_to(torch.where(square > 0, product / square, 0.0), x)
        guided = torch.lerp(free, v, options.scale)
        self.first = at if self.first is None else self.first
        if options.zero_first and at == self.first:
            guided = torch.zeros_like(guided)
        return Velocity().prediction(guided, x, at, given.variance)
