"""Guidance by the gradient of a function (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from ...process.level import Level, Prediction
from ..network import NetworkDenoiser
from .base import Guidance, Predictions, Rule, Unguided, check_scale


@final
@dataclass(frozen=True)
class ClassifierGuidance(Guidance):
    """Guidance by the gradient of any differentiable function, such as a classifier.

    `D + scale (sigma² / alpha) grad log p(y | x)`, where the gradient is that with respect to the
    noisy x (Dhariwal & Nichol 2021, sec. 4). With the exact log p(y | x) and scale 1, the
    prediction is exactly that of class y. Unlike in other kinds of guidance, the scale of no
    guidance is 0, as in the paper. At pure noise (alpha = 0), x tells nothing of y, and no
    guidance is applied.

    Args:
        function: Function that returns the log-probabilities of the wanted property, [batch]. Only
            Python can give it.
        scale: Factor of the gradient; 0 switches guidance off.
        of: Argument of the function. 'clean' calls `function(data)` with the predicted clean
            data in the user's units, and differentiates through the network. 'noisy' calls
            `function(x, at)` with noisy samples and their `Level`, as a classifier trained on noise
            expects.

    Raises:
        ValueError: no function, or a scale that is not finite.
    """

    function: Callable[..., Any] | None = None
    scale: float = 1.0
    of: Literal["clean", "noisy"] = "clean"

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if not callable(self.function):
            raise ValueError(
                f"Expected a function for ClassifierGuidance, got {self.function!r:.60}. "
                "Fix: in Python, give a function that returns log-probabilities [batch]."
            )
        if self.of not in ("clean", "noisy"):
            raise ValueError(
                f"Expected of='clean' or of='noisy', got {self.of!r:.60}. Fix: choose one of them."
            )

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        return _Gradient(denoise, self) if self.scale else Unguided(denoise)

    def log_probability(self, denoise: NetworkDenoiser, x0: Tensor, x: Tensor, at: Level) -> Tensor:
        """Returns the value of the function for each sample, [batch]; see the class."""
        assert self.function is not None
        if self.of == "noisy":
            value = self.function(x, at)
        else:
            value = self.function(denoise.parts.space.decode(x0, denoise.conditions.values))
        if not (isinstance(value, Tensor) and value.shape == x.shape[:1] and value.requires_grad):
            got = [*value.shape] if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Expected log-probabilities [{len(x)}] with a gradient from the function of "
                f"ClassifierGuidance, got {got}. Fix: return one differentiable number a sample."
            )
        return value


@final
class _Gradient(Rule):
    def __init__(self, plain: NetworkDenoiser, options: ClassifierGuidance) -> None:
        super().__init__(plain)
        self.options = options

    def differentiates(self, at: Level) -> bool:
        return bool(at.alpha)

    def combine(self, predictions: Predictions, x: Tensor, at: Level) -> Prediction:
        plain, scale = predictions[self.plain], self.options.scale
        if not at.alpha:
            return plain
        value = self.options.log_probability(self.plain, plain.x0, x, at)
        (gradient,) = torch.autograd.grad(
            value.sum(), x, retain_graph=True, create_graph=not x.is_leaf
        )
        return Prediction.of(
            (*plain.tensors, gradient),
            (*plain.x0_weights, scale * at.sigma**2 / at.alpha),
            (*plain.eps_weights, -scale * at.sigma),
            plain.variance,
        )
