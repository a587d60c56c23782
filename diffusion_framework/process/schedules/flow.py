from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Interpolating


@dataclass(frozen=True)
class Flow(Interpolating):
    """Straight path of flow matching: alpha = 1 - t and sigma = t.

    It is due to Lipman et al. 2023 and Liu et al. 2023.

    Args:
        shift: Shift of time towards high noise, above 0: t becomes `shift t / (1 + (shift - 1) t)`.
            Values above 1 spend more time at high noise, as large images need (Esser et al. 2024,
            eq. 23).

    Raises:
        ValueError: If `shift` is not above 0 and finite.
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(
                f"Expected shift above 0 and finite, got {self.shift}. Fix: use 1 for no shift."
            )

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (torch.log1p(-t) - torch.log(t) - math.log(self.shift))

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2 - math.log(self.shift))
