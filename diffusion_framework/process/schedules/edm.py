from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Exploding


@dataclass(frozen=True)
class EDM(Exploding):
    """Schedule of EDM: alpha = 1 and sigma^(1 / rho) rises linearly (Karras et al. 2022, eq. 5).

    At t = 0 sigma is sigma_min, not 0; `clean` gives the clean end.

    Args:
        sigma_min: sigma at t = 0, above 0.
        sigma_max: sigma at t = 1, above sigma_min.
        rho: Exponent, above 0. Larger values spend more of the time at low noise.

    Raises:
        ValueError: If an option is out of range.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf and 0 < self.rho < math.inf):
            raise ValueError(
                f"Expected 0 < sigma_min < sigma_max and rho > 0, all finite, got {self}. "
                "Fix: use the defaults 0.002, 80 and 7."
            )

    # The root is taken relative to its first value, so that no rho over- or underflows it.

    @property
    def _growth(self) -> float:
        return math.expm1((math.log(self.sigma_max) - math.log(self.sigma_min)) / self.rho)

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * (math.log(self.sigma_min) + self.rho * torch.log1p(t * self._growth))

    def time(self, log_snr: Tensor) -> Tensor:
        growth = torch.expm1((-log_snr / 2 - math.log(self.sigma_min)) / self.rho)
        return torch.clamp(growth / self._growth, 0, 1)
