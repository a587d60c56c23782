"""Schedules trained in discrete steps, each with its variance beta (Ho et al. 2020), as continuous curves.

Step i of N (from 0) lies at time (i + 1) / N, where alpha² is the product of 1 - beta over the steps up to it, and time
0 is clean. In between alpha falls along a monotone rational quadratic spline (Gregory & Delbourgo 1982), which has a
continuous slope and a closed-form inverse, and whose terms are all positive: nothing cancels at either end.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..level import check_step_count
from .base import NoiseSchedule


class _BetaSchedule(NoiseSchedule):
    zero_terminal_snr: bool

    def __post_init__(self) -> None:
        _exact_spline(self)  # raises where the betas make no curve

    @abstractmethod
    def step_betas(self) -> tuple[float, ...]:
        """beta of each step, before any rescaling to zero terminal SNR."""

    def log_snr(self, t: Tensor) -> Tensor:
        signal, noise, fall, start, end, _ = _spline(self, t.device, t.dtype)
        count = len(fall)
        step = (t * count).floor().clamp(0, count - 1).long()
        u = t * count - step
        v = 1 - u
        below = 1 + (start[step] + end[step] - 2) * u * v
        alpha = signal[step + 1] + fall[step] * v * (v + end[step] * u) / below
        drop = noise[step] + fall[step] * u * (u + start[step] * v) / below  # 1 - alpha
        return _log_snr(alpha, drop)

    def time(self, log_snr: Tensor) -> Tensor:
        signal, noise, fall, start, end, at_steps = _spline(self, log_snr.device, log_snr.dtype)
        count = len(fall)
        step = (torch.searchsorted(-at_steps, -log_snr.contiguous()) - 1).clamp(0, count - 1)
        alpha = torch.exp(0.5 * F.logsigmoid(log_snr))
        drop = torch.sigmoid(-log_snr) / (1 + alpha)
        # How far down the step, from either end; the larger of the two values is the one that would cancel.
        down, up = (drop - noise[step]) / fall[step], (alpha - signal[step + 1]) / fall[step]
        down, up = torch.where(drop < 0.5, down, 1 - up).clamp(0, 1), torch.where(drop < 0.5, 1 - down, up).clamp(0, 1)
        # up w² + (up start - down end) w - down = 0 for w = u / (1 - u): the root without a difference of like terms.
        slope = up * start[step] - down * end[step]
        root = slope.abs() + torch.sqrt(slope**2 + 4 * up * down)
        u = torch.where(slope > 0, 2 * down / (2 * down + root), root / (root + 2 * up))
        return (step + u) / count


@dataclass(frozen=True)
class Betas(_BetaSchedule):
    """Any trained betas, such as a checkpoint's.

    Args:
        betas: beta of each step, in (0, 1), from clean to noisy; the last may be 1. Any sequence of numbers serves. The
            default is an example of four steps.
        zero_terminal_snr: Rescale alpha so that it is exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).

    Raises:
        ValueError: a beta out of range, none, or fewer than two with zero_terminal_snr.
    """

    betas: tuple[float, ...] = (0.1, 0.3, 0.6, 0.9)
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        super().__post_init__()

    def step_betas(self) -> tuple[float, ...]:
        return self.betas


@dataclass(frozen=True)
class LinearBeta(_BetaSchedule):
    """beta rises linearly over the steps (Ho et al. 2020, sec. 4).

    Args:
        beta_start: beta of the first step, in (0, 1).
        beta_end: beta of the last step, in (0, 1).
        steps: Number of training steps.
        zero_terminal_snr: Rescale alpha so that it is exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    steps: int = 1000
    zero_terminal_snr: bool = False

    def step_betas(self) -> tuple[float, ...]:
        return _evenly(self.beta_start, self.beta_end, self.steps)


@dataclass(frozen=True)
class ScaledLinearBeta(_BetaSchedule):
    """The square root of beta rises linearly over the steps (Rombach et al. 2022: latent diffusion).

    Args:
        beta_start: beta of the first step, in (0, 1).
        beta_end: beta of the last step, in (0, 1).
        steps: Number of training steps.
        zero_terminal_snr: Rescale alpha so that it is exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps: int = 1000
    zero_terminal_snr: bool = False

    def step_betas(self) -> tuple[float, ...]:
        if not (self.beta_start > 0 and self.beta_end > 0):
            raise ValueError(f"betas must lie in (0, 1); got {self.beta_start} to {self.beta_end}")
        return tuple(x * x for x in _evenly(math.sqrt(self.beta_start), math.sqrt(self.beta_end), self.steps))


@dataclass(frozen=True)
class SquaredCosBeta(_BetaSchedule):
    """alpha² falls like cos²(pi/2 (t + s) / (1 + s)), s = 0.008, beta capped (Nichol & Dhariwal 2021, eq. 17).

    Args:
        steps: Number of training steps.
        max_beta: The cap, in (0, 1).
        zero_terminal_snr: Rescale alpha so that it is exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).
    """

    steps: int = 1000
    max_beta: float = 0.999
    zero_terminal_snr: bool = False

    def step_betas(self) -> tuple[float, ...]:
        if not 0 < self.max_beta < 1:
            raise ValueError(f"max_beta must lie in (0, 1); got {self.max_beta}")
        # With angles a, b counted from the noisy end: 1 - sin²(b) / sin²(a) = sin(a - b) sin(a + b) / sin²(a)
        check_step_count(self.steps)
        unit = math.pi / 2 / 1.008 / self.steps
        betas = []
        for left in range(self.steps, 0, -1):
            beta = math.sin(unit) * math.sin((2 * left - 1) * unit) / math.sin(left * unit) ** 2
            betas.append(min(beta, self.max_beta))
        return tuple(betas)


class _Spline(NamedTuple):
    """The curve of alpha as tensors: at the N + 1 nodes, clean first, and over the N steps between them."""

    signal: Tensor  # alpha at the nodes
    noise: Tensor  # 1 - alpha at the nodes
    fall: Tensor  # of alpha over each step
    start: Tensor  # slope at the step's start and end, in units of its fall
    end: Tensor
    log_snr: Tensor  # at the nodes


@lru_cache(maxsize=32)
def _spline(schedule: _BetaSchedule, device: torch.device, dtype: torch.dtype) -> _Spline:
    with torch.inference_mode(False):  # what is remembered must serve training too
        return _Spline(*(value.to(device, dtype) for value in _exact_spline(schedule)))


@lru_cache(maxsize=32)
def _exact_spline(schedule: _BetaSchedule) -> _Spline:
    with torch.inference_mode(False):
        signal, noise = _nodes(schedule.step_betas(), schedule.zero_terminal_snr)
        # 1 - alpha and alpha each have their full precision where they are small
        fall = torch.where(noise[1:] < 0.5, noise.diff(), -signal.diff())
        for i, value in enumerate(fall.tolist()):
            if not value > 0:
                raise ValueError(f"each step must take some of the signal; got a fall of alpha by {value} in step {i}")
        # The slope at a node is the geometric mean of those of its two steps, and goes on in ratio at both ends.
        ratio = torch.sqrt(fall[1:] / fall[:-1]) if len(fall) > 1 else torch.ones_like(fall)
        ratio = torch.cat([ratio[:1], ratio, ratio[-1:]])[: len(fall) + 1]
        return _Spline(signal, noise, fall, 1 / ratio[:-1], ratio[1:], _log_snr(signal, noise))


def _nodes(betas: tuple[float, ...], zero_terminal_snr: bool) -> tuple[Tensor, Tensor]:
    """alpha and 1 - alpha at times 0, 1 / N .. 1, each to full relative precision."""
    if not betas:
        raise ValueError("a beta schedule needs at least one step; got none")
    for beta in betas[:-1]:
        if not 0 < beta < 1:
            raise ValueError(f"betas must lie in (0, 1); got {beta}")
    if not 0 < betas[-1] <= 1:
        raise ValueError(f"the last beta must lie in (0, 1]; got {betas[-1]}")
    ends_in_noise = betas[-1] == 1
    logs = [-0.5 * math.log1p(-beta) for beta in (betas[:-1] if ends_in_noise else betas)]  # -ln of alpha's factors
    if zero_terminal_snr and not ends_in_noise:
        if len(betas) < 2:
            raise ValueError("zero_terminal_snr needs at least two steps; got 1")
        # The first alpha stays, the last becomes 0, linearly in between: (a - a_last) a_first / (a_first - a_last).
        first = math.exp(-logs[0])
        since_first = [0.0, *_running_sums(logs[1:])]
        to_last = [*_running_sums(logs[:0:-1])[::-1], 0.0]
        whole = math.expm1(-since_first[-1])
        signal = [first * math.exp(-a) * (math.expm1(-b) / whole) for a, b in zip(since_first, to_last, strict=True)]
        noise = [-math.expm1(-logs[0]) + first * (math.expm1(-a) / whole) for a in since_first]
    else:
        sums = _running_sums(logs)
        signal = [math.exp(-total) for total in sums] + [0.0] * ends_in_noise
        noise = [-math.expm1(-total) for total in sums] + [1.0] * ends_in_noise
    with torch.device("cpu"):
        return torch.tensor([1.0, *signal], dtype=torch.float64), torch.tensor([0.0, *noise], dtype=torch.float64)


def _log_snr(alpha: Tensor, drop: Tensor) -> Tensor:
    """From alpha and 1 - alpha, of which the smaller is the precise one."""
    return 2 * torch.where(drop < 0.5, torch.log1p(-drop), torch.log(alpha)) - torch.log(drop) - torch.log1p(alpha)


def _running_sums(terms: list[float]) -> list[float]:
    """Exact sums, rounded once each."""
    return [float(total) for total in itertools.accumulate(map(Fraction, terms))]


def _evenly(first: float, last: float, count: int) -> tuple[float, ...]:
    check_step_count(count)
    return tuple(first + (last - first) * i / max(count - 1, 1) for i in range(count))
