"""What training minimises, given what was noised and what the network made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from torch import Tensor

from ..process.level import Level
from ..process.objectives import Objective
from ..process.posterior import Variance
from ..process.schedules import NoiseSchedule
from .vlb import bound_term
from .weights import LossWeight, output_weight


@dataclass(frozen=True)
class Trial:
    """One batch of training, after the network has seen it.

    Attributes:
        x0: Clean data in [-1, 1], [batch, ...].
        eps: The noise, shaped like x0.
        x: The noised data, shaped like x0.
        at: Its levels, tensors [batch].
        output: The network's output, shaped like x0.
        variance: What the network says of the variance, or None (see `Prediction`).
        mask: False where the error does not count, over the first dimensions of x0; or None.
    """

    x0: Tensor
    eps: Tensor
    x: Tensor
    at: Level
    output: Tensor
    variance: Tensor | None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Process:
    """What the outputs of a trial mean.

    Attributes:
        schedule: Gives the meaning of levels.
        objective: Gives the meaning of the network's output.
        weight: On the squared error of the clean data; None for 1 on that of the output.
        steps: Steps of the process, or None in continuous time.
    """

    schedule: NoiseSchedule
    objective: Objective
    weight: LossWeight | None
    steps: int | None


class Loss(ABC):
    """A frozen dataclass: what the network is asked for, and what goes with it."""

    variance: Variance = "small"
    """Of the reverse steps, for a network that was trained with this loss."""

    @abstractmethod
    def per_sample(self, trial: Trial, process: Process) -> Tensor:
        """[batch]."""

    @abstractmethod
    def check(self, schedule: NoiseSchedule, steps: int | None, learns_variance: bool) -> None:
        """Raise ValueError unless this loss goes with so many fixed steps of the schedule, and with such a network."""


@dataclass(frozen=True)
class Simple(Loss):
    """The weighted squared error of the network's output (Ho et al. 2020, eq. 14, where the weight is 1)."""

    def check(self, schedule: NoiseSchedule, steps: int | None, learns_variance: bool) -> None:
        """Goes with all."""

    def per_sample(self, trial: Trial, process: Process) -> Tensor:
        target = process.objective.target(trial.x0, trial.eps, trial.at)
        error = (trial.output - target).square()
        if trial.mask is not None:
            error = error * trial.mask.reshape(*trial.mask.shape, *(1,) * (error.ndim - trial.mask.ndim))
        error = error.flatten(1).mean(dim=1)
        if process.weight is not None:
            error = error * output_weight(process.weight, process.objective, trial.at).to(error.dtype)
        return error


@dataclass(frozen=True)
class Bound(Loss):
    """The variational bound in bits per dimension, but for its prior term, which nothing can change. No weight acts.

    Args:
        variance: Of the reverse steps: 'small', 'large', 'learned' or 'learned_range'.
        rescaled: Multiply by the number of steps: the mean is then the whole bound, a sum over steps, else its mean
            over steps.
        bins: Values that the clean data may have, 256 for images of 8 bits; None for continuous data.
    """

    variance: Variance = "learned_range"
    rescaled: bool = True
    bins: int | None = 256

    def check(self, schedule: NoiseSchedule, steps: int | None, learns_variance: bool) -> None:
        if steps is None:
            raise ValueError(
                f"{type(self).__name__} is a sum over the steps of a process, and the times are continuous; "
                "set times to 'steps' or 'loss_aware'"
            )
        schedule.check_steps(steps)
        if self.variance.startswith("learned") and not learns_variance:
            raise ValueError(
                f"{type(self).__name__} with variance={self.variance!r} trains a network's variance, and this one puts "
                "out none; set its learned_variance to true"
            )

    def per_sample(self, trial: Trial, process: Process) -> Tensor:
        if trial.mask is not None:
            raise ValueError(f"{type(self).__name__} counts every dimension, and a mask leaves some out; use 'simple'")
        schedule, steps, at = process.schedule, process.steps, trial.at
        assert steps is not None
        prediction = process.objective.prediction(trial.output, trial.x, at, trial.variance)
        to, before = schedule.cleaner(at, steps), schedule.at((at.t + 1 / steps).clamp(max=1))
        term = bound_term(trial.x0, trial.x, prediction, at, to, self.variance, before, self.bins)
        return term * schedule.step_count(steps) if self.rescaled else term


@dataclass(frozen=True)
class Hybrid(Bound):
    """The simple loss for the mean, and a share of the bound for the variance alone (Nichol & Dhariwal 2021, eq. 16).

    Args:
        variance: Of the reverse steps: 'learned' or 'learned_range'.
        rescaled: As for `Bound`.
        bins: As for `Bound`.
        share: Of the bound, above 0.
    """

    share: float = 0.001

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise ValueError(f"the share of the bound must be above 0; got {self.share}")
        if not self.variance.startswith("learned"):
            raise ValueError(
                f"Hybrid gives the bound the variance alone, and that is not learned; got variance={self.variance!r}: "
                "use 'learned_range', or the simple loss"
            )

    def per_sample(self, trial: Trial, process: Process) -> Tensor:
        of_variance = super().per_sample(replace(trial, output=trial.output.detach()), process)
        return Simple().per_sample(trial, process) + self.share * of_variance


losses_by_name: dict[str, type[Loss]] = {"simple": Simple, "bound": Bound, "hybrid": Hybrid}
"""The names that `GaussianDiffusion(loss=...)` knows."""
