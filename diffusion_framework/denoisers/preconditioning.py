"""What a network sees of a noised x and of its level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from ..parts import resolve
from ..process.level import Level, Scalar, check_step_count, expand_to
from ..process.objectives import Objective
from ..process.schedules import NoiseSchedule

_FARTHEST = 30.0  # log-SNR in nats that stands for infinity: all but 1e-13 of x is then data, or noise


class TimeInput(ABC):
    """A frozen dataclass that tells a network the noise level as one number."""

    @abstractmethod
    def time(self, at: Level) -> Scalar:
        """The number, of a level of floats or of tensors [batch]; finite."""


@final
@dataclass(frozen=True)
class UnitTime(TimeInput):
    """t itself, in [0, 1]."""

    def time(self, at: Level) -> Scalar:
        return at.t


@final
@dataclass(frozen=True)
class StepTime(TimeInput):
    """The number of the step, from 0 to steps - 1, in fractions between them (Ho et al. 2020).

    Args:
        steps: Steps of the process; step i lies at time (i + 1) / steps.
        rescaled: Multiply by 1000 / steps, as if there were 1000 (Nichol & Dhariwal 2021: rescale_timesteps).
    """

    steps: int
    rescaled: bool = False

    def __post_init__(self) -> None:
        check_step_count(self.steps)

    def time(self, at: Level) -> Scalar:
        return (at.t * self.steps - 1) * (1000 / self.steps if self.rescaled else 1.0)


@final
@dataclass(frozen=True)
class LogSNRTime(TimeInput):
    """log-SNR in nats, not beyond 30 (Kingma et al. 2021)."""

    def time(self, at: Level) -> Scalar:
        return _finite(at.log_snr)


@final
@dataclass(frozen=True)
class CNoise(TimeInput):
    """ln(sigma / alpha) / 4 (Karras et al. 2022, table 1: c_noise)."""

    def time(self, at: Level) -> Scalar:
        return _finite(at.log_snr) / -8


class InputScaling(ABC):
    """A frozen dataclass that scales x before a network sees it.

    Attributes:
        sigma_data: Standard deviation of the clean data that it is made for; None for any.
    """

    sigma_data: float | None = None

    @abstractmethod
    def scaled(self, x: Tensor, at: Level) -> Tensor:
        """x [batch, ...] as the network is to see it."""


@final
@dataclass(frozen=True)
class Unscaled(InputScaling):
    """x as it is."""

    def scaled(self, x: Tensor, at: Level) -> Tensor:
        return x


@final
@dataclass(frozen=True)
class UnitVariance(InputScaling):
    """x over the standard deviation that it is known to have, sqrt(sigma² + alpha² sigma_data²) (Karras et al. 2022).

    Args:
        sigma_data: Standard deviation of the clean data, above 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data must be above 0; got {self.sigma_data}")

    def scaled(self, x: Tensor, at: Level) -> Tensor:
        return x * expand_to((at.sigma**2 + (at.alpha * self.sigma_data) ** 2) ** -0.5, x)


@final
@dataclass(frozen=True)
class MeasuredVariance(InputScaling):
    """x over its own standard deviation, sample by sample (Chen 2023, sec. 2.3)."""

    def scaled(self, x: Tensor, at: Level) -> Tensor:
        return x / x.flatten(1).std(dim=1).reshape(-1, *(1,) * (x.ndim - 1))


@final
@dataclass(frozen=True)
class Preconditioning:
    """What the network sees: the level as one number, and x scaled.

    The objective still reads the network's output against x itself.

    Args:
        time_input: How the network is told the level.
        input_scaling: How x is scaled before the network sees it.
    """

    time_input: TimeInput = field(default_factory=UnitTime)
    input_scaling: InputScaling = field(default_factory=Unscaled)

    def time(self, at: Level, x: Tensor) -> Tensor:
        """float32 [batch], for x [batch, ...]."""
        time = self.time_input.time(at)
        if isinstance(time, Tensor):
            return time.float().expand(len(x))
        # filled on the device: a copy from the host would wait for it
        return torch.full((len(x),), time, device=x.device, dtype=torch.float32)

    def seen(self, x: Tensor, at: Level) -> Tensor:
        """x [batch, ...] as the network sees it."""
        return self.input_scaling.scaled(x, at)


def preconditioning_for(
    schedule: NoiseSchedule,
    objective: Objective,
    time_input: str | TimeInput | None,
    input_scaling: str | InputScaling | None,
    **known: Any,
) -> Preconditioning:
    """What the network sees: what was asked for, else what the objective or the schedule propose.

    Args:
        schedule: The schedule of the model.
        objective: The objective of the model, whose proposal comes first.
        time_input: A part or its name; None leaves it to the proposals.
        input_scaling: Like time_input.
        known: Arguments for parts given by name.
    """
    known |= {"schedule": schedule, "objective": objective}
    proposed = {**schedule.proposes, **objective.proposes}
    time_input = time_input or proposed.get("time_input", "unit")
    input_scaling = input_scaling or proposed.get("input_scaling", "unscaled")
    return Preconditioning(
        resolve(time_input, TimeInput, "time_input", **known),
        resolve(input_scaling, InputScaling, "input_scaling", **known),
    )


def shared_sigma_data(default: float, *parts: Any) -> float:
    """The standard deviation of clean data for parts given by name.

    Args:
        default: That of the space.
        parts: Objectives, input scalings and loss weights; names and None are left out. What they
            say counts more than the default.

    Raises:
        ValueError: parts that contradict each other.
    """
    objects = [part for part in parts if part is not None and not isinstance(part, str)]
    told = {str(part): part.sigma_data for part in objects if part.sigma_data is not None}
    if len(set(told.values())) > 1:
        raise ValueError(f"Expected one sigma_data, got {' and '.join(told)}. Fix: give all the same.")
    return next(iter(told.values()), default)


def _finite(log_snr: Scalar) -> Scalar:
    if isinstance(log_snr, Tensor):
        return log_snr.clamp(-_FARTHEST, _FARTHEST)
    return min(max(log_snr, -_FARTHEST), _FARTHEST)
