"""Loss weights on the squared x0 error, as functions of the level; most need only its log-SNR.

Weight 1 on the squared eps error equals weight snr on x0. Weight 1 on the squared v error, with a
variance-preserving schedule, equals weight snr + 1.
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

# Stand-in for infinity, with which infinite logarithms of opposite sign cancel as in the limit.
_FAR = 1e4


class LossWeight(ABC):
    """Base of loss weights, which are frozen dataclasses with one method.

    Attributes:
        sigma_data: Standard deviation of the clean data that the weight assumes, or None.
    """

    sigma_data: float | None = None

    @abstractmethod
    def log_weight(self, at: Level) -> Tensor:
        """Returns the natural logarithm of the weight on the squared x0 error.

        Args:
            at: Levels of tensors with finite log-SNR.
        """


@dataclass(frozen=True)
class MinSNR(LossWeight):
    """Min-SNR weight, min(snr, gamma) (Hang et al. 2023, eq. 6).

    Args:
        gamma: Largest weight, above 0.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _check_positive("MinSNR", gamma=self.gamma)

    def log_weight(self, at: Level) -> Tensor:
        return at.log_snr.clamp(max=math.log(self.gamma))


@dataclass(frozen=True)
class SoftMinSNR(LossWeight):
    """Soft min-SNR weight, snr gamma / (snr + gamma) (Crowson et al. 2024, sec. 4.4).

    It is a smooth version of min-SNR. On the squared eps error, it is the sigmoid weight,
    sigmoid(bias - log-SNR) with bias = ln gamma (Kingma & Gao 2023; Hoogeboom et al. 2024).

    Args:
        gamma: Largest weight, above 0; e^bias of the sigmoid weight.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _check_positive("SoftMinSNR", gamma=self.gamma)

    def log_weight(self, at: Level) -> Tensor:
        return math.log(self.gamma) + torch.nn.functional.logsigmoid(
            at.log_snr - math.log(self.gamma)
        )


@dataclass(frozen=True)
class P2(LossWeight):
    """P2 weight, 1 / (k + snr)^gamma on the squared eps error (Choi et al. 2022, eq. 8).

    It reduces the weight of high snr, at which only imperceptible detail is left to learn.

    Args:
        k: Offset of the snr, above 0, which keeps the weight finite at low snr.
        gamma: Power with which the weight falls at high snr, at least 0.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("P2", k=self.k)
        if not 0 <= self.gamma < math.inf:
            raise ValueError(
                f"P2: Expected a finite gamma of at least 0, got {self.gamma}. Fix: set gamma=1.0."
            )

    def log_weight(self, at: Level) -> Tensor:
        return at.log_snr - self.gamma * torch.logaddexp(
            at.log_snr, torch.full_like(at.log_snr, math.log(self.k))
        )


@dataclass(frozen=True)
class EDMWeight(LossWeight):
    """EDM weight, snr + 1 / sigma_data² (Karras et al. 2022, table 1: lambda).

    On the output of the objective `Preconditioned`, this weight is 1.

    Args:
        sigma_data: Standard deviation of the clean data, above 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_positive("EDMWeight", sigma_data=self.sigma_data)

    def log_weight(self, at: Level) -> Tensor:
        return torch.logaddexp(
            at.log_snr, torch.full_like(at.log_snr, -2 * math.log(self.sigma_data))
        )


@dataclass(frozen=True)
class UniformOn(LossWeight):
    """Weight 1 on the squared error of a target, which may differ from the network's output.

    On the noise, bounded by 5, it is min-SNR. On the velocity, bounded by 400, it is the loss of
    JiT for a network that predicts clean images (Li & He 2025): its error of the velocity divides
    by a time of at least 0.05.

    Args:
        objective: Target whose squared error has weight 1.
        largest: Upper bound of the weight on the squared x0 error, above 0; None for none.
    """

    objective: Objective
    largest: float | None = None

    def __post_init__(self) -> None:
        if self.largest is not None:
            _check_positive("UniformOn", largest=self.largest)

    def log_weight(self, at: Level) -> Tensor:
        weight = -2 * _log_gain(self.objective, at)
        return weight if self.largest is None else weight.clamp(max=math.log(self.largest))


@dataclass(frozen=True)
class Likelihood(LossWeight):
    """Likelihood weight, -d snr / dt / 2 (Song et al. 2021a; Kingma et al. 2021, eq. 13).

    With uniform times, the loss is the variational bound in nats without its prior and
    reconstruction terms.

    Args:
        schedule: Noise schedule of the model.
    """

    schedule: NoiseSchedule

    def log_weight(self, at: Level) -> Tensor:
        with torch.enable_grad():
            t = at.t.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.schedule.log_snr(t).sum(), t)
        return at.log_snr + torch.log(-slope / 2)


def output_weight(weight: LossWeight, objective: Objective, at: Level) -> Tensor:
    """Converts a weight on the squared x0 error to one on the squared error of the output.

    Args:
        weight: Weight on the squared x0 error.
        objective: Meaning of the network's output.
        at: Levels of tensors [batch]. At sigma = 0 and alpha = 0 the result is the limit, not NaN.

    Returns:
        Weights [batch], not negative.
    """
    finite = Level(at.t, at.alpha, at.sigma, at.log_snr.clamp(-_FAR, _FAR))
    return torch.exp(weight.log_weight(finite) + 2 * _log_gain(objective, at))


def _log_gain(objective: Objective, at: Level) -> Tensor:
    gain = objective.gain(at)
    gain = gain if isinstance(gain, Tensor) else torch.full_like(at.log_snr, gain)
    return torch.log(gain).clamp(-_FAR / 2, _FAR / 2)


def _check_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(
                f"{owner}: Expected a finite {name} above 0, got {value}. "
                f"Fix: leave {name} out for its default."
            )
