"""Objectives: the meaning of the network's output, as one row (a, b) with output = `a x0 + b eps`.

Together with `x = alpha x0 + sigma eps`, the row is a 2x2 system, which is solved for the
prediction. No other code depends on the kind of objective.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..storage.config import SavedAsJson
from .level import Level, Prediction, Scalar, check_step_count, expand_to
from .schedules import NoiseSchedule
from .schedules.base import PRECONDITIONING


class Objective(SavedAsJson, ABC):
    """Base class of objectives: frozen dataclasses with one abstract method, `row`.

    Levels may be of floats or of tensors [batch].

    Attributes:
        sigma_data: Standard deviation of the clean data the objective assumes; None for any.
    """

    config_name = "objective.json"
    sigma_data: float | None = None

    @property
    def proposes(self) -> Mapping[str, str]:
        """Names of parts that suit the objective, for options of `GaussianDiffusion` left None.

        Besides these options, `sampler` names the default sampler.
        """
        return {}

    @abstractmethod
    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        """Returns (a, b), where the network's output means `a x0 + b eps`."""

    def target(self, x0: Tensor, eps: Tensor, at: Level) -> Tensor:
        """Returns the training target for clean data x0 and noise eps, both [batch, ...]."""
        a, b = self.row(at)
        return expand_to(a, x0) * x0 + expand_to(b, x0) * eps

    def prediction(
        self, output: Tensor, x: Tensor, at: Level, variance: Tensor | None = None
    ) -> Prediction:
        """Solves for the clean data and the noise.

        Args:
            output: The network's output, [batch, ...].
            x: The noisy data, shaped like output.
            at: The level of x, with sigma > 0.
            variance: Learned variance to attach to the prediction.
        """
        a, b = self.row(at)
        determinant = b * at.alpha - a * at.sigma
        x0_weights = expand_to(b / determinant, x), expand_to(-at.sigma / determinant, x)
        eps_weights = expand_to(-a / determinant, x), expand_to(at.alpha / determinant, x)
        return Prediction.of((x, output), x0_weights, eps_weights, variance)

    def gain(self, at: Level) -> Scalar:
        """Returns |d x0 / d output|, the factor by which an error of the output grows in x0."""
        a, b = self.row(at)
        return abs(at.sigma / (b * at.alpha - a * at.sigma))

    def check(self, schedule: NoiseSchedule) -> None:
        """Checks that the output determines the clean data at every noisy level of the schedule.

        Raises:
            ValueError: If it does not.
        """
        last = schedule.at(torch.ones(1, dtype=torch.float64, device="cpu"))
        if not torch.as_tensor(self.gain(last), device="cpu").isfinite().all():
            raise ValueError(
                f"Expected an objective that determines the clean data on all of {schedule}, "
                f"got {self}, which does not at the last level (alpha = 0 at t = 1). "
                "Fix: use the objective v, x0 or velocity."
            )


@dataclass(frozen=True)
class Eps(Objective):
    """The noise eps (Ho et al. 2020)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


@dataclass(frozen=True)
class NegatedEps(Objective):
    """The negated noise `-eps`, which is the score times sigma."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1.0


@dataclass(frozen=True)
class Score(Objective):
    """The score, `-eps / sigma` (Song et al. 2021b)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1 / at.sigma


@dataclass(frozen=True)
class X0(Objective):
    """The clean data x0."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0

    def gain(self, at: Level) -> Scalar:
        return at.sigma * 0.0 + 1.0  # the general form is 0 / 0 where sigma = 0


@dataclass(frozen=True)
class V(Objective):
    """The velocity `v = alpha eps - sigma x0` (Salimans & Ho 2022)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return -at.sigma, at.alpha


@dataclass(frozen=True)
class Velocity(Objective):
    """The velocity `eps - x0` of the straight path from data to noise (Lipman et al. 2023)."""

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0


@dataclass(frozen=True)
class Preconditioned(Objective):
    """The network F of EDM, with x0 = c_skip x + c_out F (Karras et al. 2022, eq. 7).

    The training target has unit variance at every level. On any schedule, x / alpha and sigma /
    alpha take the place of the paper's x and sigma. The objective proposes the other half of the
    preconditioning, for the network's inputs: 'c_noise' and 'unit_variance'.

    Args:
        sigma_data: Standard deviation of the clean data, above 0.

    Raises:
        ValueError: If `sigma_data` is not above 0 and finite.
    """

    sigma_data: float = 0.5

    @property
    def proposes(self) -> Mapping[str, str]:
        return PRECONDITIONING

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(
                f"Expected sigma_data above 0, got {self.sigma_data}. "
                "Fix: use the data's standard deviation, such as 0.5."
            )

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        x_std = (at.sigma**2 + (at.alpha * self.sigma_data) ** 2) ** 0.5
        return at.sigma / (self.sigma_data * x_std), -self.sigma_data * at.alpha / x_std


@dataclass(frozen=True)
class PreviousX(Objective):
    """The mean of the next cleaner step, `E[x' | x, x0]` (PREVIOUS_X of Nichol & Dhariwal 2021).

    Args:
        schedule: Noise schedule of the model.
        steps: Number of process steps, from 1 to 100,000; each takes 1 / steps of time.

    Raises:
        ValueError: If `steps` is out of range.
    """

    schedule: NoiseSchedule
    steps: int

    @property
    def proposes(self) -> Mapping[str, str]:
        return {"sampler": "ddpm"}  # few steps would magnify errors of x0

    def __post_init__(self) -> None:
        check_step_count(self.steps)

    def check(self, schedule: NoiseSchedule) -> None:
        self.schedule.check_steps(self.steps)
        if schedule != self.schedule:
            raise ValueError(
                f"Expected the model's schedule, {schedule}, got the objective's {self.schedule}. "
                "Fix: give both the same schedule, or give the objective by its name, 'previous_x'."
            )

    def row(self, at: Level) -> tuple[Scalar, Scalar]:
        to = self.schedule.cleaner(at, self.steps)
        return to.alpha, at.alpha * to.sigma**2 / (to.alpha * at.sigma)

    def gain(self, at: Level) -> Scalar:
        # The difference in the general form would cancel.
        to = self.schedule.cleaner(at, self.steps)
        change = at.log_snr - to.log_snr
        factor = -torch.expm1(change) if isinstance(change, Tensor) else -math.expm1(change)
        return 1 / (to.alpha * factor)
