"""What the network's output means: one row (a, b), the output being `a x0 + b eps`.

Together with `x = alpha x0 + sigma eps` that row is a 2x2 system, and its solution is the prediction: no objective
needs a branch of its own anywhere else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..storage.config import SavedAsJson
from .level import Level, Prediction, Scalar, check_step_count, expand_to
from .schedules import NoiseSchedule


class Objective(SavedAsJson, ABC):
    """A frozen dataclass with one method, `row`. Levels may be of floats or of tensors [batch]."""

    config_name = "objective.json"

    @abstractmethod
    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        """(a, b) such that the network's output means `a x0 + b eps`."""

    def target(self, x0: Tensor, eps: Tensor, at: Level) -> Tensor:
        """What the network should put out for clean data x0 and noise eps, both [batch, ...]."""
        a, b = self.row(at)
        return expand_to(a, x0) * x0 + expand_to(b, x0) * eps

    def prediction(self, output: Tensor, x: Tensor, at: Level, variance: Tensor | None = None) -> Prediction:
        """Clean data and noise from the network's output for x, both [batch, ...]; needs at.sigma > 0."""
        a, b = self.row(at)
        determinant = b * at.alpha - a * at.sigma
        of_x0 = expand_to(b / determinant, x), expand_to(-at.sigma / determinant, x)
        of_eps = expand_to(-a / determinant, x), expand_to(at.alpha / determinant, x)
        return Prediction.of((x, output), of_x0, of_eps, variance)

    def gain(self, at: Level) -> Scalar:
        """|d x0 / d output|: how far an error of the output moves x0."""
        a, b = self.row(at)
        return abs(at.sigma / (b * at.alpha - a * at.sigma))

    def check(self, schedule: NoiseSchedule) -> None:
        """Raise ValueError unless the output determines the clean data at all levels of the schedule with noise."""
        last = schedule.at(torch.ones(1, dtype=torch.float64, device="cpu"))
        if not torch.as_tensor(self.gain(last), device="cpu").isfinite().all():
            raise ValueError(
                f"{self} says nothing of the clean data where none of it is left, and {schedule} ends there "
                "(alpha = 0 at t = 1); use the objective v, x0 or velocity"
            )


@dataclass(frozen=True)
class Eps(Objective):
    """The network predicts the noise (Ho et al. 2020)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


@dataclass(frozen=True)
class NegatedEps(Objective):
    """The network predicts `-eps`, the score in units of 1 / sigma."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1.0


@dataclass(frozen=True)
class Score(Objective):
    """The network predicts the score, `-eps / sigma` (Song et al. 2021b)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1 / at.sigma


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


@dataclass(frozen=True)
class Velocity(Objective):
    """The network predicts `eps - x0`, the speed along the straight path between them (Lipman et al. 2023)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0


@dataclass(frozen=True)
class Preconditioned(Objective):
    """The network is F of Karras et al. 2022, eq. 7: x0 = c_skip x + c_out F, of unit variance at every level.

    On any schedule, its x / alpha and sigma / alpha being those of the paper. The other half of its preconditioning is
    what the network sees: `GaussianDiffusion(time_input="c_noise", input_scaling="unit_variance")`.

    Args:
        sigma_data: Standard deviation of the clean data, above 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data must be above 0; got {self.sigma_data}")

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        deviation = (at.sigma**2 + (at.alpha * self.sigma_data) ** 2) ** 0.5  # of x
        return at.sigma / (self.sigma_data * deviation), -self.sigma_data * at.alpha / deviation


@dataclass(frozen=True)
class PreviousX(Objective):
    """The network predicts the mean of the next cleaner step, `E[x' | x, x0]` (Nichol & Dhariwal 2021: PREVIOUS_X).

    Args:
        schedule: The schedule of the model.
        steps: Steps of the process, one being 1 / steps of time.
    """

    schedule: NoiseSchedule
    steps: int

    def __post_init__(self) -> None:
        check_step_count(self.steps)

    def check(self, schedule: NoiseSchedule) -> None:
        self.schedule.check_steps(self.steps)
        if schedule != self.schedule:
            raise ValueError(f"the objective must have the model's schedule, {schedule}; got {self.schedule}")

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        to = self.schedule.cleaner(at, self.steps)
        return to.alpha, at.alpha * to.sigma**2 / (to.alpha * at.sigma)

    def gain(self, at: Level) -> Scalar:  # the difference in the general form cancels
        to = self.schedule.cleaner(at, self.steps)
        fall = at.log_snr - to.log_snr
        left = -torch.expm1(fall) if isinstance(fall, Tensor) else -math.expm1(fall)
        return 1 / (to.alpha * left)


by_name: dict[str, type[Objective]] = {
    "v": V,
    "x0": X0,
    "eps": Eps,
    "previous_x": PreviousX,
    "score": Score,
    "velocity": Velocity,
    "edm": Preconditioned,
}
"""The names that `GaussianDiffusion(objective=...)` knows."""
