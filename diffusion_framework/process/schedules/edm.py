from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Exploding


@dataclass(frozen=True)
class EDM(Exploding):
    """alpha = 1 and the rho-th root of sigma rises linearly with time (Karras et al. 2022, eq. 5).

    At t = 0 sigma is sigma_min, not 0; the clean end is `clean`.

    Args:
        sigma_min: sigma at t = 0, above 0.
        sigma_max: sigma at t = 1, above sigma_min.
        rho: The larger, the more of the time is spent at low noise; above 0.

    Raises:
        ValueError: an option out of range.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf and 0 < self.rho < math.inf):
            raise ValueError(f"EDM needs 0 < sigma_min < sigma_max and rho > 0; got {self}")

    # The root relative to its first value, so that no rho over- or underflows it.

    @property
    def _growth(self) -> float:
        return math.expm1((math.log(self.sigma_max) - math.log(self.sigma_min)) / self.rho)

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * (math.log(self.sigma_min) + self.rho * torch.log1p(t * self._growth))

    def time(self, log_snr: Tensor) -> Tensor:
        grown = torch.expm1((-log_snr / 2 - math.log(self.sigma_min)) / self.rho)
        return torch.clamp(grown / self._growth, 0, 1)
