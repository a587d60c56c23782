from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...denoisers import Denoiser
from ...process.level import Level, Noise, expand_to, move
from .solver import AdaptiveSolver, Known


@dataclass(frozen=True)
class AdaptiveDPMSolver(AdaptiveSolver):
    """DPM-Solver++ with steps of chosen length, of orders 1 2 or 2 3 (Lu et al. 2022a, app. C).

    The axis is ln(alpha / sigma). From t = 1 without any signal, where that is infinite, a first-order step leads to
    alpha / sigma = 0.001.

    Args:
        order: Of the result, 2 or 3, and network calls of a step; its difference from one order less is the error.
    """

    order: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (2, 3):
            raise ValueError(f"AdaptiveDPMSolver has orders 2 and 3; got {self.order}")

    @property
    def error_order(self) -> int:
        return self.order

    def place(self, at: Level) -> float:
        return at.log_snr / 2

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        if now.alpha == 0:
            signal = denoise.schedule.at_log_snr(min(2 * math.log(1e-3), to.log_snr))
            x, now = move(denoise(x, now), signal), signal
        return super().step(denoise, x, now, to, state, noise)

    def attempt(
        self, denoise: Denoiser, x: Tensor, place: Tensor, length: Tensor, known: Known
    ) -> tuple[Tensor, Tensor, Known, Known]:
        now, end = (denoise.schedule.at_log_snr(2 * value) for value in (place, place + length))
        first = denoise(x, now).x0
        lines = [_reach(x, now, end, first, first, 1.0)]
        part, latest = 0.0, first
        for stage in range(1, self.order):
            node = stage / self.order
            at = denoise.schedule.at_log_snr(2 * (place + node * length))
            latest = denoise(_reach(x, now, at, first, latest, part / node), at).x0
            part = node
            lines.append(_reach(x, now, end, first, latest, part))
        return lines[-2], lines[-1], (), ()


def _reach(x: Tensor, now: Level, at: Level, first: Tensor, latest: Tensor, part: float) -> Tensor:
    """x at level `at`, by the line through the clean data predicted at `now` and, that part of the way, last."""
    z = (at.log_snr - now.log_snr) / 2
    steep = z.clamp(min=1e-3)  # E[u] under exp(z u) on [0, 1]; its closed form cancels where z is small
    mean = torch.where(z < 1e-3, 0.5 + z / 12, -1 / torch.expm1(-steep) - 1 / steep)
    data = torch.lerp(first, latest, expand_to(mean / (part or 1.0), x))
    kept = at.sigma / now.sigma
    return expand_to(kept, x) * x + expand_to(at.alpha - kept * now.alpha, x) * data
