from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...denoisers import Denoiser
from ...process.level import Level, combine, expand_to
from .solver import AdaptiveSolver, Reused

# Dormand & Prince 1980: position of each stage in the step, and its weights of earlier slopes.
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
    """Runge-Kutta of order 5(4) for the probability-flow ODE, with adaptive step sizes.

    It is the method of Song et al. 2021b, sec. 4.3, in another variable. x is scaled to
    alpha² + sigma² = 1. Its derivative by the angle atan(sigma / alpha) is then the velocity v
    (Salimans & Ho 2022, app. D), finite from pure noise (angle pi / 2) to the clean end (0).
    Steps are measured in the negated angle. Each solver step takes six network calls, because its
    last slope is the first slope of the next step.

    Args:
        rtol: Tolerated error of a step relative to x, in root mean squares over a sample.
        atol: Smallest tolerated error of a step, in units of the data.
        first: Length of the first step, in radians.
        end: sigma / alpha below which one first-order step leads to the clean end.
        max_steps: Largest number of solver steps, including rejected ones, per step of the grid.

    Raises:
        ValueError: If an option is out of range, or max_steps do not suffice.
        FloatingPointError: If the network returned NaN or infinity.
    """

    rtol: float = 1e-3
    atol: float = 1e-3

    @property
    def error_order(self) -> int:
        return 5

    def position(self, at: Level) -> float:
        return -math.atan2(at.sigma, at.alpha)

    def attempt(
        self, denoise: Denoiser, x: Tensor, position: Tensor, length: Tensor, reused: Reused
    ) -> tuple[Tensor, Tensor, Reused, Reused]:
        h = expand_to(length, x)
        now = _level(denoise, position)
        y = x / _scale(now, x)
        slopes = [*reused] or [_slope(denoise, x, now)]
        for node, weights in STAGES:
            at = _level(denoise, position + node * length)
            x = (y + h * combine(slopes, weights)) * _scale(at, x)
            slopes.append(_slope(denoise, x, at))
        lower = x - h * combine(slopes, ERROR) * _scale(at, x)
        return lower, x, (slopes[0],), (slopes[-1],)


def _level(denoise: Denoiser, position: Tensor) -> Level:
    return denoise.schedule.at_log_snr(-2 * torch.log(torch.tan(-position)))


def _scale(at: Level, x: Tensor) -> Tensor:
    """Returns sqrt(alpha² + sigma²), which broadcasts against x."""
    at = at.expand_to(x)
    return torch.hypot(at.alpha, at.sigma)


def _slope(denoise: Denoiser, x: Tensor, at: Level) -> Tensor:
    """Returns -v, the derivative of the scaled x by the negated angle."""
    prediction = denoise(x, at)
    scale, at = _scale(at, x), at.expand_to(x)
    return (at.sigma * prediction.x0 - at.alpha * prediction.eps) / scale
