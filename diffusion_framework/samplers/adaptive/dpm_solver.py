from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...denoisers import Denoiser
from ...process.level import Level, Noise, expand_to, move
from .solver import AdaptiveSolver, Reused


@dataclass(frozen=True)
class AdaptiveDPMSolver(AdaptiveSolver):
    """DPM-Solver++ of order 2 or 3 with adaptive step sizes (Lu et al. 2022a, app. C).

    Steps are measured in ln(alpha / sigma). From a level without signal, at minus infinity, a
    first-order step leads to alpha / sigma = 0.001.

    Args:
        rtol: Tolerated error of a step relative to x, in root mean squares over a sample.
        atol: Smallest tolerated error of a step, in units of the data.
        first: Length of the first step, in ln(alpha / sigma).
        end: sigma / alpha below which one first-order step leads to the clean end.
        max_steps: Largest number of solver steps, including rejected ones, per step of the grid.
        order: Order of the result and network calls per solver step, 2 or 3. The error estimate is
            the difference from the result of one order less.

    Raises:
        ValueError: If an option is out of range, or max_steps do not suffice.
        FloatingPointError: If the network returned NaN or infinity.
    """

    order: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (2, 3):
            raise ValueError(f"Expected order 2 or 3, got {self.order}. Fix: use the default 3.")

    @property
    def error_order(self) -> int:
        return self.order

    def position(self, at: Level) -> float:
        return at.log_snr / 2

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        if now.alpha == 0:
            signal = denoise.schedule.at_log_snr(min(2 * math.log(1e-3), to.log_snr))
            x, now = move(denoise(x, now), signal), signal
        return super().step(denoise, x, now, to, state, noise)

    def attempt(
        self, denoise: Denoiser, x: Tensor, position: Tensor, length: Tensor, reused: Reused
    ) -> tuple[Tensor, Tensor, Reused, Reused]:
        now, end = (
            denoise.schedule.at_log_snr(2 * value) for value in (position, position + length)
        )
        first = denoise(x, now).x0
        estimates = [_advance(x, now, end, first, first, 1.0)]
        last_node, last = 0.0, first
        for stage in range(1, self.order):
            node = stage / self.order
            at = denoise.schedule.at_log_snr(2 * (position + node * length))
            last = denoise(_advance(x, now, at, first, last, last_node / node), at).x0
            last_node = node
            estimates.append(_advance(x, now, end, first, last, last_node))
        return estimates[-2], estimates[-1], (), ()


def _advance(x: Tensor, now: Level, to: Level, first: Tensor, last: Tensor, node: float) -> Tensor:
    """Returns x at level `to`, from the line through two predictions of clean data.

    Args:
        x: Samples at level `now`, [batch, ...].
        now: Level the step starts from.
        to: Level the step leads to.
        first: Clean data predicted at `now`.
        last: Clean data predicted last.
        node: Position of the last prediction, as a share of the step from `now` to `to`.
    """
    # E[u] under the density exp(z u) on [0, 1]; its closed form cancels where z is small
    z = (to.log_snr - now.log_snr) / 2
    large_z = z.clamp(min=1e-3)
    mean = torch.where(z < 1e-3, 0.5 + z / 12, -1 / torch.expm1(-large_z) - 1 / large_z)
    x0 = torch.lerp(first, last, expand_to(mean / (node or 1.0), x))
    ratio = to.sigma / now.sigma
    return expand_to(ratio, x) * x + expand_to(to.alpha - ratio * now.alpha, x) * x0
