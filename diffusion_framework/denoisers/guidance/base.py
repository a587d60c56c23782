"""Base classes of guidance: `Guidance`, which users give, and its `Rule` for one trajectory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...conditions import BoundConditions
from ...process.level import Level, Prediction
from ..base import Denoiser
from ..network import NetworkDenoiser, predict_together

Predictions = Mapping[NetworkDenoiser, Prediction]
"""Predictions of several denoisers for the same x at the same level."""


class Rule(ABC):
    """Guidance of one trajectory, which may keep state from call to call.

    Args:
        plain: Denoiser under the conditions of the trajectory, with an empty memory.
    """

    def __init__(self, plain: NetworkDenoiser) -> None:
        self.plain = plain

    def asks(self, at: Level) -> Sequence[NetworkDenoiser]:
        """Returns the denoisers whose predictions `combine` needs besides that of `plain`."""
        return ()

    def differentiates(self, at: Level) -> bool:
        """Returns whether `combine` needs gradients with respect to x.

        x is then a leaf of the graph, unless the caller needs gradients through the result as well.
        """
        return False

    @abstractmethod
    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        """Returns the guided prediction.

        Args:
            predictions: Predictions of `plain` and of the denoisers that `asks` returns.
            x: Samples [batch, ...] at level `at`.
            at: Level of floats.
        """


@final
class Unguided(Rule):
    """Rule that returns the plain prediction itself."""

    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        return predictions[self.plain]


class Guidance(ABC):
    """Base class of guidance: frozen dataclasses that make a guided denoiser for each trajectory.

    A new kind of guidance implements `begin`. All kinds work on the predicted clean data D(x).
    """

    @final
    def bind(self, denoise: NetworkDenoiser) -> Denoiser:
        """Returns a guided version of a denoiser.

        Args:
            denoise: Denoiser under the conditions of the trajectory, with an empty memory.

        Raises:
            ValueError: the network was not trained for this guidance.
        """
        return GuidedDenoiser(self.begin(denoise))

    @abstractmethod
    def begin(self, denoise: NetworkDenoiser) -> Rule:
        """Returns the rule of one trajectory; see `bind`."""

    @cached_property
    def _encoded(self) -> WeakKeyDictionary[BoundConditions, Any]:
        return WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Returns the options alone, without what was computed from them."""
        return {field.name: vars(self)[field.name] for field in fields(self)}  # type: ignore[arg-type]

    def once(self, conditions: BoundConditions, make: Callable[[], Any]) -> Any:
        """Returns a value made once for the conditions of a trajectory, such as encoded text."""
        if conditions not in self._encoded:
            self._encoded[conditions] = make()
        return self._encoded[conditions]


@final
class GuidedDenoiser:
    """Denoiser that follows the rule of a guidance, with one call of each network.

    Args:
        rule: Rule of this trajectory.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule, self.schedule = rule, rule.plain.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        if not self.rule.differentiates(at):
            return self.rule.combine(self._predictions(x, at, to), x, at)
        if torch.is_inference_mode_enabled():
            raise ValueError(
                "Expected a mode that allows gradients for classifier guidance, got "
                "torch.inference_mode. Fix: sample under torch.no_grad()."
            )
        outer = torch.is_grad_enabled() and x.requires_grad  # as in the flow's likelihood
        with torch.enable_grad():
            x = x.view_as(x) if outer else x.detach().requires_grad_()  # a leaf, unless outer
            guided = self.rule.combine(self._predictions(x, at, to), x, at)
        if outer:
            return guided
        variance = guided.variance if guided.variance is None else guided.variance.detach()
        tensors = tuple(tensor.detach() for tensor in guided.tensors)
        return Prediction.of(tensors, guided.x0_weights, guided.eps_weights, variance)

    def _predictions(self, x: Tensor, at: Level, to: Level | None) -> Predictions:
        asked = list(dict.fromkeys((self.rule.plain, *self.rule.asks(at))))
        return dict(zip(asked, predict_together(asked, x, at, to), strict=True))


def weighted(
    shares: Sequence[tuple[float, Prediction]], variance: Tensor | None = None
) -> Prediction:
    """Returns a weighted sum of predictions of the same x at one level.

    Args:
        shares: Weight and prediction of each; the weights add up to 1.
        variance: Learned variance of the result.
    """
    x0_weights = tuple(share * w for share, prediction in shares for w in prediction.x0_weights)
    eps_weights = tuple(share * w for share, prediction in shares for w in prediction.eps_weights)
    tensors = tuple(tensor for _, prediction in shares for tensor in prediction.tensors)
    return Prediction.of(tensors, x0_weights, eps_weights, variance)


def extrapolate(given: Prediction, free: Prediction, scale: float) -> Prediction:
    """Returns `free + scale (given - free)` for two predictions of the same x at one level.

    Args:
        given: Conditional prediction, which also gives the learned variance.
        free: Unconditional prediction, or that of a weaker model.
        scale: Guidance scale; 1 returns `given`, 0 returns `free`.
    """
    return weighted(((scale, given), (1 - scale, free)), given.variance)


def check_scale(scale: float) -> None:
    """Raises ValueError for a guidance scale that is not finite."""
    if not abs(scale) < float("inf"):
        raise ValueError(
            f"Expected a finite guidance scale, got {scale}. Fix: take a number from 1 to 10."
        )
