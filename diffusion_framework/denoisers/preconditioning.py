"""Preconditioning: how the noise level and the noised x are presented to the network."""

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

# Log-SNR in nats that stands for infinity: all but 1e-13 of x is then data, or noise.
_MAX_LOG_SNR = 30.0


class TimeInput(ABC):
    """Base class of frozen dataclasses that encode the noise level as one number."""

    @abstractmethod
    def time(self, at: Level) -> Scalar:
        """Returns a finite float, or a tensor [batch] for a level of tensors."""


@final
@dataclass(frozen=True)
class UnitTime(TimeInput):
    """The time t, in [0, 1]."""

    def time(self, at: Level) -> Scalar:
        return at.t


@final
@dataclass(frozen=True)
class StepTime(TimeInput):
    """Index of the process step, from 0 to steps - 1, fractional between steps (Ho et al. 2020).

    Args:
        steps: Number of process steps; step i has time (i + 1) / steps.
        rescaled: Whether to multiply the index by 1000 / steps, as for 1000 process steps
            (rescale_timesteps of Nichol & Dhariwal 2021).
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
    """Log-SNR in nats, clamped to [-30, 30] (Kingma et al. 2021)."""

    def time(self, at: Level) -> Scalar:
        return _finite(at.log_snr)


@final
@dataclass(frozen=True)
class SigmaTime(TimeInput):
    """sigma / alpha, as networks of variance-exploding schedules take it (Song et al. 2021b).

    It lies in [3.1e-7, 3.3e6], because the log-SNR is clamped to [-30, 30] nats.
    """

    def time(self, at: Level) -> Scalar:
        half = _finite(at.log_snr) / -2
        return torch.exp(half) if isinstance(half, Tensor) else math.exp(half)


@final
@dataclass(frozen=True)
class CNoise(TimeInput):
    """ln(sigma / alpha) / 4, with the log-SNR clamped to [-30, 30] nats.

    It is c_noise of Karras et al. (2022, table 1).
    """

    def time(self, at: Level) -> Scalar:
        return _finite(at.log_snr) / -8


class InputScaling(ABC):
    """Base class of frozen dataclasses that scale x before it enters the network.

    Attributes:
        sigma_data: Standard deviation of clean data that the scaling assumes; None for any.
    """

    sigma_data: float | None = None

    @abstractmethod
    def scaled(self, x: Tensor, at: Level) -> Tensor:
        """Returns x [batch, ...] scaled for the network."""


@final
@dataclass(frozen=True)
class Unscaled(InputScaling):
    """x unchanged."""

    def scaled(self, x: Tensor, at: Level) -> Tensor:
        return x


@final
@dataclass(frozen=True)
class UnitVariance(InputScaling):
    """x divided by its expected standard deviation (Karras et al. 2022).

    The divisor is sqrt(sigma² + alpha² sigma_data²).

    Args:
        sigma_data: Standard deviation of the clean data, above 0.

    Raises:
        ValueError: sigma_data is not above 0, or infinite.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(
                f"Expected a finite sigma_data above 0, got {self.sigma_data}. "
                "Fix: take 0.5 for images."
            )

    def scaled(self, x: Tensor, at: Level) -> Tensor:
        return x * expand_to((at.sigma**2 + (at.alpha * self.sigma_data) ** 2) ** -0.5, x)


@final
@dataclass(frozen=True)
class MeasuredVariance(InputScaling):
    """Each sample of x divided by its own standard deviation (Chen 2023, sec. 2.3).

    The estimate divides by the number of entries (it is biased), and is at least 1e-5.
    """

    def scaled(self, x: Tensor, at: Level) -> Tensor:
        std = x.flatten(1).std(dim=1, correction=0).clamp(min=1e-5)
        return x / std.reshape(-1, *(1,) * (x.ndim - 1))


@final
@dataclass(frozen=True)
class Preconditioning:
    """Inputs of the network: the level as one number, and scaled x.

    The objective still relates the network's output to the unscaled x.

    Args:
        time_input: Encoding of the level.
        input_scaling: Scaling of x.
    """

    time_input: TimeInput = field(default_factory=UnitTime)
    input_scaling: InputScaling = field(default_factory=Unscaled)

    def time(self, at: Level, x: Tensor) -> Tensor:
        """Returns the level of x [batch, ...] as a float32 tensor [batch]."""
        time = self.time_input.time(at)
        if isinstance(time, Tensor):
            return time.float().expand(len(x))
        # torch.full works on the device; a copy from the host would synchronise with it
        return torch.full((len(x),), time, device=x.device, dtype=torch.float32)

    def seen(self, x: Tensor, at: Level) -> Tensor:
        """Returns x [batch, ...] scaled for the network."""
        return self.input_scaling.scaled(x, at)


def preconditioning_for(
    schedule: NoiseSchedule,
    objective: Objective,
    time_input: str | TimeInput | None,
    input_scaling: str | InputScaling | None,
    **known: Any,
) -> Preconditioning:
    """Returns the requested preconditioning, or the one that objective and schedule propose.

    Args:
        schedule: Noise schedule of the model.
        objective: Objective of the model; its proposals override the schedule's.
        time_input: A `TimeInput` or its name; None for the proposed one.
        input_scaling: An `InputScaling` or its name; None for the proposed one.
        known: Constructor arguments for parts given by name.
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
    """Returns the standard deviation of clean data that all given parts agree on.

    Args:
        default: Value if no part has one: that of the data space.
        parts: Objectives, input scalings and loss weights; names and None are ignored.

    Raises:
        ValueError: parts with different values.
    """
    objects = [part for part in parts if part is not None and not isinstance(part, str)]
    told = {str(part): part.sigma_data for part in objects if part.sigma_data is not None}
    if len(set(told.values())) > 1:
        raise ValueError(
            f"Expected one sigma_data, got {' and '.join(told)}. Fix: give all parts the same."
        )
    return next(iter(told.values()), default)


def _finite(log_snr: Scalar) -> Scalar:
    if isinstance(log_snr, Tensor):
        return log_snr.clamp(-_MAX_LOG_SNR, _MAX_LOG_SNR)
    return min(max(log_snr, -_MAX_LOG_SNR), _MAX_LOG_SNR)
