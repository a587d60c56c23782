"""Schedules defined by gamma(t) = alpha²: linear, cosine and sigmoid (Chen 2023).

They are from "On the Importance of Noise Scheduling for Diffusion Models". The formulas use
differences that do not cancel, so log-SNR is exact to float64 rounding up to both ends. The usual
form `log(gamma / (1 - gamma))` loses precision at the clean end and needs clamping at both.
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
            raise ValueError(
                f"Expected clip_min in (0, 0.5), got {self.clip_min}. Fix: use the default 1e-9."
            )

    @abstractmethod
    def curve(self, t: Tensor) -> Tensor:
        """Returns log-SNR at times t in [0, 1], before gamma is clipped to clip_min."""

    def log_snr(self, t: Tensor) -> Tensor:
        return self.curve(t).clamp(min=math.log(self.clip_min) - math.log1p(-self.clip_min))


@dataclass(frozen=True)
class Linear(_Gamma):
    """Schedule whose gamma falls linearly from 1 to 0 (Chen 2023).

    Args:
        clip_min: Smallest gamma, reached at t = 1; in (0, 0.5).
    """

    clip_min: float = 1e-9

    def curve(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - torch.log(t)

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr)


@dataclass(frozen=True)
class Sigmoid(_Gamma):
    """Default schedule, whose gamma falls along a logistic curve (Jabri et al. 2022, eq. 2).

    Args:
        start: Point of the logistic curve at t = 0.
        end: Point of the logistic curve at t = 1, above start.
        tau: Temperature of the curve sigmoid(x / tau), above 0.
        clip_min: Smallest gamma, reached at t = 1; in (0, 0.5).
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    clip_min: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.start < self.end and self.tau > 0):
            raise ValueError(
                f"Expected start < end and tau > 0, got {self}. Fix: use the defaults."
            )

    # sigmoid(a) - sigmoid(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)) turns both gamma
    # and 1 - gamma into products. Their ratio is sinh((1 - t) half) / sinh(t half), up to a factor.

    @property
    def _half(self) -> float:
        return (self.end - self.start) / (2 * self.tau)

    @property
    def _offset(self) -> float:
        return _log_cosh(self.start / (2 * self.tau)) - _log_cosh(self.end / (2 * self.tau))

    def curve(self, t: Tensor) -> Tensor:
        return _log_sinh((1 - t) * self._half) - _log_sinh(t * self._half) + self._offset

    def time(self, log_snr: Tensor) -> Tensor:
        # tanh(t half) = sinh(half) / (ratio + cosh(half)); the same holds for 1 - t with 1 / ratio.
        # The smaller of t and 1 - t is computed, since it is the more precise one.
        half, log_ratio = self._half, log_snr - self._offset
        from_clean = _atanh_ratio(half, log_ratio) / half
        from_noise = _atanh_ratio(half, -log_ratio) / half
        return torch.where(log_ratio > 0, from_clean, 1 - from_noise)


@dataclass(frozen=True)
class Cosine(_Gamma):
    """Schedule whose gamma is a segment of cos(pi t / 2)^(2 tau), rescaled to fall from 1 to 0.

    It is due to Nichol & Dhariwal 2021, and generalised by Chen 2023.

    Args:
        start: Point of the quarter wave at t = 0, in [0, 1).
        end: Point of the quarter wave at t = 1, in (start, 1].
        tau: Half the exponent of the cosine, above 0.
        clip_min: Smallest gamma, reached at t = 1; in (0, 0.5).
    """

    start: float = 0.0
    end: float = 1.0
    tau: float = 1.0
    clip_min: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.start < self.end <= 1 and self.tau > 0):
            raise ValueError(
                f"Expected 0 <= start < end <= 1 and tau > 0, got {self}. Fix: use the defaults."
            )

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
        # cos(first) - cos(angle) and cos(angle) - cos(last), as products that do not cancel.
        drop_so_far = 2 * torch.sin(first + t * span / 2) * torch.sin(t * span / 2)
        drop_to_come = 2 * torch.sin(last - (1 - t) * span / 2) * torch.sin((1 - t) * span / 2)
        power = 2 * self.tau
        log_noise = power * math.log(cos_first) + torch.log(
            -torch.expm1(power * torch.log1p(-(drop_so_far / cos_first).clamp(max=1)))
        )
        if cos_last == 0:
            return power * torch.log(drop_to_come) - log_noise
        growth = torch.expm1(power * torch.log1p(drop_to_come / cos_last))
        return power * math.log(cos_last) + torch.log(growth) - log_noise

    def time(self, log_snr: Tensor) -> Tensor:
        first, last = self._angles
        cos_first, cos_last = self._cosines
        power = 2 * self.tau
        floor = (cos_last / cos_first) ** power
        # The logarithm of (cos(angle) / cos(first))^power has two forms, each precise at one end.
        near_noise = torch.log(floor + (1 - floor) * torch.sigmoid(log_snr))
        near_clean = torch.log1p(-(1 - floor) * torch.sigmoid(-log_snr))
        log_ratio = torch.where(log_snr > 0, near_clean, near_noise) / power
        half_drop = -cos_first * torch.expm1(log_ratio) / 2  # (cos(first) - cos(angle)) / 2
        angle = 2 * torch.asin(torch.sqrt(math.sin(first / 2) ** 2 + half_drop))
        # half_drop = sin((angle + first) / 2) sin((angle - first) / 2), solved for angle - first.
        # Subtracting first from angle would cancel.
        difference = 2 * torch.asin(half_drop / torch.sin((angle + first) / 2))
        return torch.where(half_drop > 0, difference / (last - first), torch.zeros_like(half_drop))


def _log_cosh(x: float) -> float:
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)


def _log_sinh(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-2 * x)) - math.log(2)


def _atanh_ratio(half: float, log_ratio: Tensor) -> Tensor:
    """Returns atanh(sinh(half) / (exp(log_ratio) + cosh(half))), for any half without overflow.

    With s = sinh(half), c = cosh(half) and r = exp(log_ratio), it is log1p(2 s / (r + c - s)) / 2.
    Here, c - s = exp(-half). Numerator and denominator are divided by exp(half).
    """
    s = -math.expm1(-2 * half) / 2
    return 0.5 * torch.log1p(2 * s / (torch.exp(log_ratio - half) + math.exp(-2 * half)))
