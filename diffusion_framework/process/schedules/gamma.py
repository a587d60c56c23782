"""Schedules given as gamma(t) = alpha²: linear, cosine and sigmoid (Chen 2023, "On the importance ...").

The formulas are written in differences that do not cancel, so log-SNR is exact to float64 rounding right up to both
ends. `log(gamma / (1 - gamma))`, as usually written, loses the clean end, and clamps both.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import NoiseSchedule


class _Gamma(NoiseSchedule):
    clip_min: float

    def __post_init__(self) -> None:
        if not 0 < self.clip_min < 0.5:
            raise ValueError(f"clip_min must lie in (0, 0.5); got {self.clip_min}")

    @abstractmethod
    def curve(self, t: Tensor) -> Tensor:
        """log-SNR before gamma is clipped from below."""

    def log_snr(self, t: Tensor) -> Tensor:
        return self.curve(t).clamp(min=math.log(self.clip_min) - math.log1p(-self.clip_min))


@dataclass(frozen=True)
class Linear(_Gamma):
    """gamma falls linearly from 1 to 0.

    Args:
        clip_min: Smallest gamma, reached at t = 1.
    """

    clip_min: float = 1e-9

    def curve(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - torch.log(t)

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr)


@dataclass(frozen=True)
class Sigmoid(_Gamma):
    """gamma falls along a logistic curve (Jabri et al. 2022, eq. 2), the default.

    Args:
        start: Where on the logistic curve t = 0 lies.
        end: Where t = 1 lies; above start.
        tau: Temperature: the curve is sigmoid(x / tau).
        clip_min: Smallest gamma, reached at t = 1.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    clip_min: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.start < self.end and self.tau > 0):
            raise ValueError(f"sigmoid needs start < end and tau > 0; got {self}")

    # sigmoid(a) - sigmoid(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)) turns both gamma and 1 - gamma into
    # products, and their ratio into sinh((1 - t) half) / sinh(t half) times a constant.

    @property
    def _half(self) -> float:
        return (self.end - self.start) / (2 * self.tau)

    @property
    def _offset(self) -> float:
        return _log_cosh(self.start / (2 * self.tau)) - _log_cosh(self.end / (2 * self.tau))

    def curve(self, t: Tensor) -> Tensor:
        return _log_sinh((1 - t) * self._half) - _log_sinh(t * self._half) + self._offset

    def time(self, log_snr: Tensor) -> Tensor:
        # tanh(t half) = sinh(half) / (ratio + cosh(half)), and the mirror image for 1 - t: take the smaller of the two.
        half, log_ratio = self._half, log_snr - self._offset
        from_clean = _atanh_ratio(half, log_ratio) / half
        from_noise = _atanh_ratio(half, -log_ratio) / half
        return torch.where(log_ratio > 0, from_clean, 1 - from_noise)


@dataclass(frozen=True)
class Cosine(_Gamma):
    """gamma falls like cos(pi t / 2)^(2 tau) between two points of the curve (Nichol & Dhariwal 2021; Chen 2023).

    Args:
        start: Where on the quarter wave t = 0 lies, in [0, 1).
        end: Where t = 1 lies, in (start, 1].
        tau: The cosine is raised to the power 2 tau.
        clip_min: Smallest gamma, reached at t = 1.
    """

    start: float = 0.0
    end: float = 1.0
    tau: float = 1.0
    clip_min: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.start < self.end <= 1 and self.tau > 0):
            raise ValueError(f"cosine needs 0 <= start < end <= 1 and tau > 0; got {self}")

    @property
    def _angles(self) -> tuple[float, float]:
        return self.start * math.pi / 2, self.end * math.pi / 2

    @property
    def _cosines(self) -> tuple[float, float]:
        return math.sin((1 - self.start) * math.pi / 2), math.sin((1 - self.end) * math.pi / 2)

    def curve(self, t: Tensor) -> Tensor:
        first, last = self._angles
        cos_first, cos_last = self._cosines
        span = last - first
        # cos(first) - cos(angle) and cos(angle) - cos(last) as products of sines, neither of which cancels.
        fallen = 2 * torch.sin(first + t * span / 2) * torch.sin(t * span / 2)
        left = 2 * torch.sin(last - (1 - t) * span / 2) * torch.sin((1 - t) * span / 2)
        power = 2 * self.tau
        log_noise = power * math.log(cos_first) + torch.log(
            -torch.expm1(power * torch.log1p(-(fallen / cos_first).clamp(max=1)))
        )
        if cos_last == 0:
            return power * torch.log(left) - log_noise
        log_signal = power * math.log(cos_last) + torch.log(torch.expm1(power * torch.log1p(left / cos_last)))
        return log_signal - log_noise

    def time(self, log_snr: Tensor) -> Tensor:
        first, last = self._angles
        cos_first, cos_last = self._cosines
        power = 2 * self.tau
        floor = (cos_last / cos_first) ** power
        kept = floor + (1 - floor) * torch.sigmoid(
            log_snr
        )  # (cos(angle) / cos(first))^power; two forms of its logarithm
        near_clean = torch.log1p(-(1 - floor) * torch.sigmoid(-log_snr))
        log_fall = torch.where(log_snr > 0, near_clean, torch.log(kept)) / power
        fall = -cos_first * torch.expm1(log_fall) / 2  # (cos(first) - cos(angle)) / 2
        angle = 2 * torch.asin(torch.sqrt(math.sin(first / 2) ** 2 + fall))
        # fall = sin((angle + first) / 2) sin((angle - first) / 2): solved for the difference, which does not cancel
        difference = 2 * torch.asin(fall / torch.sin((angle + first) / 2))
        return torch.where(fall > 0, difference / (last - first), torch.zeros_like(fall))


def _log_cosh(x: float) -> float:
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)


def _log_sinh(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-2 * x)) - math.log(2)


def _atanh_ratio(half: float, log_ratio: Tensor) -> Tensor:
    """atanh(sinh(half) / (exp(log_ratio) + cosh(half))), for any half without overflow.

    = log1p(2 s / (r + c - s)) / 2, where c - s = exp(-half); divided through by exp(half).
    """
    s = -math.expm1(-2 * half) / 2
    return 0.5 * torch.log1p(2 * s / (torch.exp(log_ratio - half) + math.exp(-2 * half)))
