"""Loss weights: functions of log-SNR on the squared error of the clean data.

Every unit weight is one of them: 1 on x0 is 1, on eps it is snr, on v (variance preserving) it is snr + 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..level import Level
from ..objectives import Objective


class LossWeight(ABC):
    """A frozen dataclass with one method."""

    @abstractmethod
    def log_weight(self, log_snr: Tensor) -> Tensor:
        """Natural logarithm of the weight on the squared x0 error, for finite log-SNR in nats, any shape."""


@dataclass(frozen=True)
class MinSNR(LossWeight):
    """min(snr, gamma) (Hang et al. 2023, eq. 6).

    Args:
        gamma: Largest weight, above 0.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not (0 < self.gamma < math.inf):
            raise ValueError(f"min-SNR needs gamma > 0; got {self.gamma}")

    def log_weight(self, log_snr: Tensor) -> Tensor:
        return log_snr.clamp(max=math.log(self.gamma))


def output_weight(weight: LossWeight, objective: Objective, at: Level) -> Tensor:
    """The weight on the squared error of the network's *output* that equals `weight` on that of x0.

    Args:
        at: Levels of tensors [batch]; sigma = 0 and alpha = 0 give the limits there, not NaN.

    Returns:
        [batch], not negative.
    """
    far = 1e4  # stands for infinity: where two infinite logarithms meet, they cancel as their limits do
    log_gain = torch.log(torch.abs(torch.as_tensor(objective.gain(at)))).clamp(-far / 2, far / 2)
    return torch.exp(weight.log_weight(at.log_snr.clamp(-far, far)) + 2 * log_gain)
