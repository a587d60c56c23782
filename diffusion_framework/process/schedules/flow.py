from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Interpolating


@dataclass(frozen=True)
class Flow(Interpolating):
    """The straight path of flow matching: alpha = 1 - t, sigma = t (Lipman et al. 2023; Liu et al. 2023).

    Args:
        shift: Above 0; t is replaced by `shift t / (1 + (shift - 1) t)`, which above 1 spends more time at high noise,
            as large images need (Esser et al. 2024, eq. 23).

    Raises:
        ValueError: shift is not above 0.
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift must be above 0; got {self.shift}")

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (torch.log1p(-t) - torch.log(t) - math.log(self.shift))

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2 - math.log(self.shift))
