from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...denoisers import Denoiser
from ...process.level import Level, combine, expand_to
from .solver import AdaptiveSolver, Known

# Dormand & Prince 1980: how far into the step each stage lies, and its weights of the slopes before it.
STAGES = (
    (1 / 5, (1 / 5,)),
    (3 / 10, (3 / 40, 9 / 40)),
    (4 / 5, (44 / 45, -56 / 15, 32 / 9)),
    (8 / 9, (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729)),
    (1.0, (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656)),
    (1.0, (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class RK45(AdaptiveSolver):
    """The probability-flow ODE by Runge-Kutta of order 5(4), with steps of chosen length (Song et al. 2021b, sec. 4.3).

    Scaled to alpha² + sigma² = 1, x turns with the angle atan(sigma / alpha) at the velocity v (Salimans & Ho 2022,
    app. D), which is finite from pure noise, pi / 2, to the clean end, 0: the axis is that angle, backwards.
    Six network calls a step, as its last slope is the first of the next one.
    """

    rtol: float = 1e-3
    atol: float = 1e-3

    @property
    def error_order(self) -> int:
        return 5

    def place(self, at: Level) -> float:
        return -math.atan2(at.sigma, at.alpha)

    def attempt(
        self, denoise: Denoiser, x: Tensor, place: Tensor, length: Tensor, known: Known
    ) -> tuple[Tensor, Tensor, Known, Known]:
        h = expand_to(length, x)
        now = _level(denoise, place)
        y = x / _scale(now, x)
        slopes = [*known] or [_slope(denoise, x, now)]
        for part, weights in STAGES:
            at = _level(denoise, place + part * length)
            x = (y + h * combine(slopes, weights)) * _scale(at, x)
            slopes.append(_slope(denoise, x, at))
        lower = x - h * combine(slopes, ERROR) * _scale(at, x)
        return lower, x, (slopes[0],), (slopes[-1],)


def _level(denoise: Denoiser, place: Tensor) -> Level:
    return denoise.schedule.at_log_snr(-2 * torch.log(torch.tan(-place)))


def _scale(at: Level, x: Tensor) -> Tensor:
    at = at.expand_to(x)
    return torch.hypot(at.alpha, at.sigma)


def _slope(denoise: Denoiser, x: Tensor, at: Level) -> Tensor:
    """-v: what x, scaled, changes by as the angle falls."""
    prediction = denoise(x, at)
    scale, at = _scale(at, x), at.expand_to(x)
    return (at.sigma * prediction.x0 - at.alpha * prediction.eps) / scale
