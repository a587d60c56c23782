"""Loss weights: functions of the level on the squared error of the clean data, most of them of its
log-SNR alone.

Every unit weight is one of them: 1 on x0 is 1, on eps it is snr, on v (variance preserving) it is
snr + 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..process.level import Level
from ..process.objectives import Objective
from ..process.schedules import NoiseSchedule

_FAR = (
    1e4  # stands for infinity: where two infinite logarithms meet, they cancel as their limits do
)


class LossWeight(ABC):
    """A frozen dataclass with one method.

    Attributes:
        sigma_data: Standard deviation of the clean data that it is made for; None for any.
    """

    sigma_data: float | None = None

    @abstractmethod
    def log_weight(self, at: Level) -> Tensor:
        """Natural logarithm of the weight on the squared x0 error, for levels of tensors with
        finite log-SNR.
        """


@dataclass(frozen=True)
class MinSNR(LossWeight):
    """min(snr, gamma) (Hang et al. 2023, eq. 6).

    Args:
        gamma: Largest weight, above 0.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _check_positive("min-SNR", gamma=self.gamma)

    def log_weight(self, at: Level) -> Tensor:
        return at.log_snr.clamp(max=math.log(self.gamma))


@dataclass(frozen=True)
class SoftMinSNR(LossWeight):
    """snr gamma / (snr + gamma): min-SNR without its corner (Crowson et al. 2024, sec. 4.4).

    Args:
        gamma: Largest weight, above 0.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _check_positive("soft min-SNR", gamma=self.gamma)

    def log_weight(self, at: Level) -> Tensor:
        return math.log(self.gamma) + torch.nn.functional.logsigmoid(
            at.log_snr - math.log(self.gamma)
        )


@dataclass(frozen=True)
class P2(LossWeight):
    """1 / (k + snr)^gamma on the eps error: less where only imperceptible detail is left (Choi et
    al. 2022, eq. 8).

    Args:
        k: Above 0; keeps the weight finite at low snr.
        gamma: How steeply the weight falls at high snr; 0 for none, not negative.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("P2", k=self.k)
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"P2 needs gamma >= 0; got {self.gamma}")

    def log_weight(self, at: Level) -> Tensor:
        return at.log_snr - self.gamma * torch.logaddexp(
            at.log_snr, torch.full_like(at.log_snr, math.log(self.k))
        )


@dataclass(frozen=True)
class EDMWeight(LossWeight):
    """snr + 1 / sigma_data², which is 1 on the output of `Preconditioned` (Karras et al. 2022,
    table 1: lambda).

    Args:
        sigma_data: Standard deviation of the clean data, above 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_positive("the EDM weight", sigma_data=self.sigma_data)

    def log_weight(self, at: Level) -> Tensor:
        return torch.logaddexp(
            at.log_snr, torch.full_like(at.log_snr, -2 * math.log(self.sigma_data))
        )


@dataclass(frozen=True)
class UniformOn(LossWeight):
    """The plain squared error of a target, whatever it is that the network predicts.

    Args:
        objective: The target.
    """

    objective: Objective

    def log_weight(self, at: Level) -> Tensor:
        return -2 * _log_gain(self.objective, at)


@dataclass(frozen=True)
class Likelihood(LossWeight):
    """-d snr / dt / 2: with uniform times the loss is the variational bound in nats (Song et al.
    2021a; Kingma et al.
    2021, eq. 13), but for its two ends.

    Args:
        schedule: The schedule of the model.
    """

    schedule: NoiseSchedule

    def log_weight(self, at: Level) -> Tensor:
        with torch.enable_grad():
            t = at.t.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.schedule.log_snr(t).sum(), t)
        return at.log_snr + torch.log(-slope / 2)


def output_weight(weight: LossWeight, objective: Objective, at: Level) -> Tensor:
    """The weight on the squared error of the network's *output* that equals `weight` on that of x0.

    Args:
        weight: On the squared error of x0.
        objective: What the output means.
        at: Levels of tensors [batch]; sigma = 0 and alpha = 0 give the limits there, not NaN.

    Returns:
        [batch], not negative.
    """
    finite = Level(at.t, at.alpha, at.sigma, at.log_snr.clamp(-_FAR, _FAR))
    return torch.exp(weight.log_weight(finite) + 2 * _log_gain(objective, at))


def _log_gain(objective: Objective, at: Level) -> Tensor:
    gain = objective.gain(at)
    gain = gain if isinstance(gain, Tensor) else torch.full_like(at.log_snr, gain)
    return torch.log(gain).clamp(-_FAR / 2, _FAR / 2)


def _check_positive(what: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{what} needs {name} > 0; got {value}")
