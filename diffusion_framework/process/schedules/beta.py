"""Continuous schedules through the discrete steps of a trained model (Ho et al. 2020).

Each step has its variance beta. Step i of N, counted from 0, lies at time (i + 1) / N; its alpha²
is the product of 1 - beta over steps 0 to i. Time 0 is clean.

Between steps alpha follows a monotone rational quadratic spline (Gregory & Delbourgo 1982). The
spline has a continuous slope and a closed-form inverse. All its terms are positive, so nothing
cancels at either end.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..level import check_step_count
from .base import NoiseSchedule


class _BetaSchedule(NoiseSchedule):
    zero_terminal_snr: bool

    def __post_init__(self) -> None:
        _exact_spline(self)  # raises ValueError if the betas do not define a curve

    @abstractmethod
    def step_betas(self) -> tuple[float, ...]:
        """Returns the beta of each step, before any rescaling to zero terminal SNR."""

    def log_snr(self, t: Tensor) -> Tensor:
        spline = _spline(self, t.device, t.dtype)
        count = len(spline.drop)
        step = (t * count).floor().clamp(0, count - 1).long()
        drop, start, end = spline.drop[step], spline.start_slope[step], spline.end_slope[step]
        u = t * count - step
        v = 1 - u
        denominator = 1 + (start + end - 2) * u * v
        alpha = spline.alpha[step + 1] + drop * v * (v + end * u) / denominator
        one_minus_alpha = spline.one_minus_alpha[step] + drop * u * (u + start * v) / denominator
        return _log_snr(alpha, one_minus_alpha)

    def time(self, log_snr: Tensor) -> Tensor:
        spline = _spline(self, log_snr.device, log_snr.dtype)
        count = len(spline.drop)
        step = (torch.searchsorted(-spline.log_snr, -log_snr.contiguous()) - 1).clamp(0, count - 1)
        drop, start, end = spline.drop[step], spline.start_slope[step], spline.end_slope[step]
        alpha = torch.exp(0.5 * F.logsigmoid(log_snr))
        one_minus_alpha = torch.sigmoid(-log_snr) / (1 + alpha)
        # Share of the step's drop before (down) and after (up) this level, from the smaller of
        # alpha and 1 - alpha: differences of the larger cancel.
        down = (one_minus_alpha - spline.one_minus_alpha[step]) / drop
        up = (alpha - spline.alpha[step + 1]) / drop
        near_clean = one_minus_alpha < 0.5
        down, up = torch.where(near_clean, down, 1 - up), torch.where(near_clean, 1 - down, up)
        down, up = down.clamp(0, 1), up.clamp(0, 1)
        # w = u / (1 - u) solves up w² + (up start - down end) w - down = 0. This form of its root
        # has no difference of like terms.
        slope = up * start - down * end
        root = slope.abs() + torch.sqrt(slope**2 + 4 * up * down)
        u = torch.where(slope > 0, 2 * down / (2 * down + root), root / (root + 2 * up))
        return (step + u) / count


@dataclass(frozen=True)
class Betas(_BetaSchedule):
    """Schedule given by the beta of each step, as stored in published checkpoints.

    Args:
        betas: beta of each step, from clean to noisy, in (0, 1); the last may be 1. Accepts any
            sequence of numbers. The default is an example with four steps.
        zero_terminal_snr: Whether to rescale alpha to exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).

    Raises:
        ValueError: If a beta is out of range or none is given, or if zero_terminal_snr has fewer
            than two betas.
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
    """Schedule whose beta rises linearly over the steps (Ho et al. 2020, sec. 4).

    By default, the betas of 1000 steps are multiplied by 1000 / steps (Nichol & Dhariwal 2021), so
    that nearly the same curve is divided into more or fewer steps.

    Args:
        beta_start: beta of the first step, in (0, 1); None for 0.1 / steps.
        beta_end: beta of the last step, in (0, 1); None for 20 / steps, at most 0.999.
        steps: Number of training steps, from 1 to 100,000.
        zero_terminal_snr: Whether to rescale alpha to exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).
    """

    beta_start: float | None = None
    beta_end: float | None = None
    steps: int = 1000
    zero_terminal_snr: bool = False

    def step_betas(self) -> tuple[float, ...]:
        start, end = _ends(self, 1e-4, 0.02)
        return _evenly(start, end, self.steps)


@dataclass(frozen=True)
class ScaledLinearBeta(_BetaSchedule):
    """Schedule of latent diffusion: sqrt(beta) rises linearly over the steps (Rombach et al. 2022).

    By default, the betas of 1000 steps are multiplied by 1000 / steps, as in `LinearBeta`.

    Args:
        beta_start: beta of the first step, in (0, 1); None for 0.85 / steps.
        beta_end: beta of the last step, in (0, 1); None for 12 / steps, at most 0.999.
        steps: Number of training steps, from 1 to 100,000.
        zero_terminal_snr: Whether to rescale alpha to exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).
    """

    beta_start: float | None = None
    beta_end: float | None = None
    steps: int = 1000
    zero_terminal_snr: bool = False

    def step_betas(self) -> tuple[float, ...]:
        start, end = _ends(self, 0.00085, 0.012)
        return tuple(x * x for x in _evenly(math.sqrt(start), math.sqrt(end), self.steps))


@dataclass(frozen=True)
class SquaredCosBeta(_BetaSchedule):
    """Schedule whose alpha² is a squared cosine, with capped beta (Nichol & Dhariwal 2021, eq. 17).

    The curve is cos²(pi/2 (t + s) / (1 + s)) with s = 0.008.

    Args:
        steps: Number of training steps, from 1 to 100,000.
        max_beta: Largest beta of a step, in (0, 1).
        zero_terminal_snr: Whether to rescale alpha to exactly 0 at t = 1 (Lin et al. 2023, Alg. 1).
    """

    steps: int = 1000
    max_beta: float = 0.999
    zero_terminal_snr: bool = False

    def step_betas(self) -> tuple[float, ...]:
        if not 0 < self.max_beta < 1:
            raise ValueError(
                f"Expected max_beta in (0, 1), got {self.max_beta}. Fix: use the default 0.999."
            )
        # With angles a, b counted from the noisy end:
        # 1 - sin²(b) / sin²(a) = sin(a - b) sin(a + b) / sin²(a)
        check_step_count(self.steps)
        unit = math.pi / 2 / 1.008 / self.steps
        betas = []
        for steps_left in range(self.steps, 0, -1):
            beta = (
                math.sin(unit)
                * math.sin((2 * steps_left - 1) * unit)
                / math.sin(steps_left * unit) ** 2
            )
            betas.append(min(beta, self.max_beta))
        return tuple(betas)


class _Spline(NamedTuple):
    """Spline of alpha, with values at N + 1 nodes from clean to noisy and slopes over N steps."""

    alpha: Tensor  # [N + 1]
    one_minus_alpha: Tensor  # [N + 1]
    drop: Tensor  # [N], decrease of alpha over each step
    start_slope: Tensor  # [N], slope at each step's start, in units of its drop
    end_slope: Tensor  # [N], slope at each step's end, in units of its drop
    log_snr: Tensor  # [N + 1]


@lru_cache(maxsize=32)
def _spline(schedule: _BetaSchedule, device: torch.device, dtype: torch.dtype) -> _Spline:
    with torch.inference_mode(False):  # cached tensors must also serve training
        return _Spline(*(value.to(device, dtype) for value in _exact_spline(schedule)))


@lru_cache(maxsize=32)
def _exact_spline(schedule: _BetaSchedule) -> _Spline:
    with torch.inference_mode(False):
        alpha, one_minus_alpha = _nodes(schedule.step_betas(), schedule.zero_terminal_snr)
        # differences of the smaller of alpha and 1 - alpha are more precise
        drop = torch.where(one_minus_alpha[1:] < 0.5, one_minus_alpha.diff(), -alpha.diff())
        for i, value in enumerate(drop.tolist()):
            if not value > 0:
                raise ValueError(
                    f"Expected alpha to fall in every step, got a fall of {value} in step {i}. "
                    "Fix: raise betas near 0, or lower the last ones."
                )
        # The slope at a node is the geometric mean of the slopes of its two steps. At both ends the
        # last ratio of slopes is repeated.
        ratio = torch.sqrt(drop[1:] / drop[:-1]) if len(drop) > 1 else torch.ones_like(drop)
        ratio = torch.cat([ratio[:1], ratio, ratio[-1:]])[: len(drop) + 1]
        log_snr = _log_snr(alpha, one_minus_alpha)
        return _Spline(alpha, one_minus_alpha, drop, 1 / ratio[:-1], ratio[1:], log_snr)


def _nodes(betas: tuple[float, ...], zero_terminal_snr: bool) -> tuple[Tensor, Tensor]:
    """Returns alpha and 1 - alpha at times 0, 1 / N, ..., 1, each to full relative precision."""
    if not betas:
        raise ValueError("Expected at least one beta, got none. Fix: give one for each step.")
    for beta in betas[:-1]:
        if not 0 < beta < 1:
            raise ValueError(
                f"Expected betas in (0, 1), got {beta}. Fix: replace it; only the last may be 1."
            )
    if not 0 < betas[-1] <= 1:
        raise ValueError(
            f"Expected the last beta in (0, 1], got {betas[-1]}. Fix: use 1 to end in pure noise."
        )
    ends_in_noise = betas[-1] == 1
    decays = [-0.5 * math.log1p(-beta) for beta in (betas[:-1] if ends_in_noise else betas)]
    if zero_terminal_snr and not ends_in_noise:
        alpha, one_minus_alpha = _rescaled_to_zero(decays)
    else:
        sums = _running_sums(decays)
        alpha = [math.exp(-total) for total in sums] + [0.0] * ends_in_noise
        one_minus_alpha = [-math.expm1(-total) for total in sums] + [1.0] * ends_in_noise
    exact: Any = {"dtype": torch.float64, "device": "cpu"}
    return torch.tensor([1.0, *alpha], **exact), torch.tensor([0.0, *one_minus_alpha], **exact)


def _rescaled_to_zero(decays: list[float]) -> tuple[list[float], list[float]]:
    """Returns alpha and 1 - alpha, rescaled so that the first alpha stays and the last is 0.

    This is (a - a_last) a_first / (a_first - a_last), from Lin et al. 2023, Alg. 1.

    Args:
        decays: -ln(alpha_i / alpha_(i - 1)) for each step i.
    """
    if len(decays) < 2:
        raise ValueError(
            "Expected at least two betas with zero_terminal_snr, got 1. Fix: give more betas."
        )
    first = math.exp(-decays[0])
    since_first = [0.0, *_running_sums(decays[1:])]
    to_last = [*_running_sums(decays[:0:-1])[::-1], 0.0]
    total = math.expm1(-since_first[-1])
    pairs = zip(since_first, to_last, strict=True)
    alpha = [first * math.exp(-a) * (math.expm1(-b) / total) for a, b in pairs]
    one_minus_alpha = [
        -math.expm1(-decays[0]) + first * (math.expm1(-a) / total) for a in since_first
    ]
    return alpha, one_minus_alpha


def _log_snr(alpha: Tensor, one_minus_alpha: Tensor) -> Tensor:
    """Returns log-SNR, taking ln(alpha) from the smaller and so more precise argument."""
    near_clean = one_minus_alpha < 0.5
    log_alpha = torch.where(near_clean, torch.log1p(-one_minus_alpha), torch.log(alpha))
    return 2 * log_alpha - torch.log(one_minus_alpha) - torch.log1p(alpha)


def _running_sums(terms: list[float]) -> list[float]:
    """Returns cumulative sums, each computed exactly and rounded once."""
    return [float(total) for total in itertools.accumulate(map(Fraction, terms))]


def _ends(schedule: LinearBeta | ScaledLinearBeta, start: float, end: float) -> tuple[float, ...]:
    """Returns the betas of the first and the last step; None stands for those of 1000 steps.

    Raises:
        ValueError: If a beta is not in (0, 1).
    """
    check_step_count(schedule.steps)
    scaled = [min(beta * 1000 / schedule.steps, 0.999) for beta in (start, end)]
    given = (schedule.beta_start, schedule.beta_end)
    betas = [one if beta is None else beta for one, beta in zip(scaled, given, strict=True)]
    for beta in betas:
        if not 0 < beta < 1:
            raise ValueError(f"Expected betas in (0, 1), got {beta}. Fix: use the default betas.")
    return tuple(betas)


def _evenly(first: float, last: float, count: int) -> tuple[float, ...]:
    return tuple(first + (last - first) * i / max(count - 1, 1) for i in range(count))
