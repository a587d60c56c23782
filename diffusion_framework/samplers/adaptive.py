from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..level import Level, Noise, Prediction, move
from .base import Sampler


@dataclass(frozen=True)
class Adaptive(Sampler[None]):
    """DPM-Solver++ with steps of its own inside each step of the grid, of orders 1 2 or 2 3 (Lu et al. 2022a, app. C).

    Each sample has its own steps, so that it does not depend on the rest of the batch.
    A grid of two steps, to just above the end and to the end, leaves all to it.

    Args:
        order: Of the result, 2 or 3; its difference from one order less is the error.
        rtol: Error of a step that is tolerated, relative to x.
        atol: Error of a step that is tolerated at least.
        first: Length of the first step, in ln(alpha / sigma).
        max_calls: Network calls in one step of the grid before it gives up.
    """

    order: int = 3
    rtol: float = 0.05
    atol: float = 0.0078
    first: float = 0.05
    max_calls: int = 10_000

    def __post_init__(self) -> None:
        if self.order not in (2, 3) or min(self.rtol, self.atol, self.first) <= 0:
            raise ValueError(f"Adaptive has orders 2 and 3, and rtol, atol and first above 0; got {self}")

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        if not math.isfinite(to.log_snr - now.log_snr):
            return move(denoise(x, now), to), None
        reached = torch.full((len(x),), now.log_snr, dtype=torch.float64, device=x.device)
        size, last_error = torch.full_like(reached, 2 * self.first), torch.ones_like(reached)
        calls = 0
        while (left := to.log_snr - reached).max() > 0:
            if calls >= self.max_calls:
                raise ValueError(f"no end after max_calls={self.max_calls} network calls; raise it, rtol or atol")
            taken = torch.minimum(size, left)
            low, high = self._two_orders(denoise, x, reached, taken)
            scale = torch.clamp(self.rtol * torch.maximum(low.abs(), x.abs()), min=self.atol)
            error = ((low - high) / scale).reshape(len(x), -1).square().mean(1).sqrt().double().clamp(min=1e-9)
            good = error <= 1
            x = torch.where(good.reshape(-1, *(1,) * (x.ndim - 1)), high, x)
            reached = torch.where(good, torch.where(taken < left, reached + taken, to.log_snr), reached)
            # proportional-integral control of the next step (Hairer & Wanner 1996, IV.2)
            size = taken * (0.9 * error ** (-0.7 / self.order) * last_error ** (0.4 / self.order)).clamp(0.2, 5.0)
            last_error = torch.where(good, error, last_error)
            calls += self.order
        return x, None

    def _two_orders(self, denoise: Denoiser, x: Tensor, log_snr: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """x a step further, of each sample its own, by the lower and by the higher order."""
        now, end = (denoise.schedule.at_log_snr(value) for value in (log_snr, log_snr + size))
        first = denoise(x, now).x0
        lines = [_reach(x, now, end, first, first, 1.0)]
        part, latest = 0.0, first
        for stage in range(1, self.order):
            node = stage / self.order
            at = denoise.schedule.at_log_snr(log_snr + node * size)
            latest = denoise(_reach(x, now, at, first, latest, part / node), at).x0
            part = node
            lines.append(_reach(x, now, end, first, latest, part))
        return lines[-2], lines[-1]


def _reach(x: Tensor, now: Level, at: Level, first: Tensor, latest: Tensor, part: float) -> Tensor:
    """x at level `at`, by the line through the clean data predicted at `now` and, that part of the way, last."""
    z = (at.log_snr - now.log_snr) / 2
    steep = z.clamp(min=1e-3)  # E[u] under exp(z u) on [0, 1]; its closed form cancels where z is small
    mean = torch.where(z < 1e-3, 0.5 + z / 12, -1 / torch.expm1(-steep) - 1 / steep)
    weight = (mean / (part or 1.0)).to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
    prediction = Prediction.from_x0(torch.lerp(first, latest, weight), x, now)
    at = at.like(x)
    return at.alpha * prediction.x0 + at.sigma * prediction.eps
