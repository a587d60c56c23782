from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Exploding


@dataclass(frozen=True)
class VE(Exploding):
    """Variance-exploding schedule whose sigma rises geometrically (Song et al. 2021b, eq. 30).

    At t = 0 sigma is sigma_min, not 0; `clean` gives the clean end.

    Args:
        sigma_min: sigma at t = 0, above 0.
        sigma_max: sigma at t = 1, above sigma_min; about the largest distance between data points.

    Raises:
        ValueError: If a sigma is out of range.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"Expected 0 < sigma_min < sigma_max < inf, got {self}. Fix: use the defaults."
            )

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * ((1 - t) * math.log(self.sigma_min) + t * math.log(self.sigma_max))

    def time(self, log_snr: Tensor) -> Tensor:
        first, last = math.log(self.sigma_min), math.log(self.sigma_max)
        return torch.clamp((-log_snr / 2 - first) / (last - first), 0, 1)
