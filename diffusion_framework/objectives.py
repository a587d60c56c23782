"""What the network's output means: one row (a, b), the output being `a x0 + b eps`.

Together with `x = alpha x0 + sigma eps` that row is a 2x2 system, and its solution is the prediction: no objective
needs a branch of its own anywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from .config import Portable
from .level import Level, Prediction, Scalar


class Objective(Portable, ABC):
    """A frozen dataclass with one method, `row`. Levels may be of floats or of tensors (see `Level.like`)."""

    config_name = "objective.json"

    @abstractmethod
    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        """(a, b) such that the network's output means `a x0 + b eps`, with a <= 0 <= b or b = 0."""

    def target(self, x0: Tensor, eps: Tensor, at: Level) -> Tensor:
        """What the network should put out for clean data x0 and noise eps, both [batch, ...]."""
        a, b = self.row(at.like(x0))
        return a * x0 + b * eps

    def prediction(self, output: Tensor, x: Tensor, at: Level, variance: Tensor | None = None) -> Prediction:
        """Clean data and noise from the network's output for x, both [batch, ...]; needs at.sigma > 0."""
        at = at.like(x)
        a, b = self.row(at)
        determinant = b * at.alpha - a * at.sigma
        x0_weights = (b / determinant, -at.sigma / determinant)
        return Prediction.of((x, output), x0_weights, (-a / determinant, at.alpha / determinant), variance)

    def gain(self, at: Level) -> Scalar:
        """|d x0 / d output|: how far an error of the output moves x0."""
        a, b = self.row(at)
        return at.sigma / (b * at.alpha - a * at.sigma)


@dataclass(frozen=True)
class Eps(Objective):
    """The network predicts the noise (Ho et al. 2020)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


@dataclass(frozen=True)
class X0(Objective):
    """The network predicts the clean data."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0

    def gain(self, at: Level) -> Scalar:
        return at.sigma * 0.0 + 1.0  # the general form is 0 / 0 where sigma = 0


@dataclass(frozen=True)
class V(Objective):
    """The network predicts the velocity `alpha eps - sigma x0` (Salimans & Ho 2022)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return -at.sigma, at.alpha


by_name: dict[str, type[Objective]] = {"v": V, "x0": X0, "eps": Eps}
"""The names that `GaussianDiffusion(objective=...)` knows."""
