"""Steps of chosen length: what the adaptive samplers share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...denoisers import Denoiser
from ...process.level import Level, Noise, expand_to, move
from ..base import Sampler

Known = Sequence[Tensor]  # predictions that a solver has for a place, each [batch, ...]


@dataclass(frozen=True)
class AdaptiveSolver(Sampler[None]):
    """A solver of the probability-flow ODE that makes steps of its own inside each step of the grid.

    Each sample has its own steps, so that it does not depend on the rest of the batch. A grid of one step leaves all
    to it. Derived classes say what a step is.

    Args:
        rtol: Error of a step that is tolerated, relative to x (root mean squares over a sample).
        atol: Error of a step that is tolerated at least.
        first: Length of the first step, on the axis of the solver.
        end: sigma / alpha from which one first-order step leads to the clean end; steps of its own lead down to it, or
            to the end of the schedule. More for a network that never saw so little noise.
        max_steps: Steps within one of the grid, those taken back too, before it gives up.

    Raises:
        ValueError: an option out of range, or no end after max_steps.
        FloatingPointError: the network gave NaN or infinity.
    """

    rtol: float = 0.05
    atol: float = 0.0078
    first: float = 0.05
    end: float = 0.002
    max_steps: int = 10_000

    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not min(self.rtol, self.atol, self.first, self.end, self.max_steps) > 0:
            raise ValueError(f"an adaptive sampler needs options above 0; got {self}")

    @property
    @abstractmethod
    def error_order(self) -> int:
        """Power of its length with which the error of a step grows."""

    @abstractmethod
    def place(self, at: Level) -> float:
        """Where a level lies on the axis of the solver, which rises as noise falls."""

    @abstractmethod
    def attempt(
        self, denoise: Denoiser, x: Tensor, place: Tensor, length: Tensor, known: Known
    ) -> tuple[Tensor, Tensor, Known, Known]:
        """x a step further, by a lower and by a higher order, and what is then known at its start and its end.

        Each sample has its own place and length, float64 [batch]; `known` is that of the start, or () at first.
        """

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        if not to.is_end:
            return self._solve(denoise, x, now, to), None
        last = denoise.schedule.at_log_snr(min(-2 * math.log(self.end), denoise.schedule.at(0.0).log_snr))
        if last.log_snr > now.log_snr:
            x, now = self._solve(denoise, x, now, last), last
        return move(denoise(x, now), to), None

    def _solve(self, denoise: Denoiser, x: Tensor, now: Level, to: Level) -> Tensor:
        goal = self.place(to)
        place = torch.full((len(x),), self.place(now), dtype=torch.float64, device=x.device)
        length, last_error = torch.full_like(place, self.first), torch.ones_like(place)
        known: Known = ()
        steps = 0
        while (left := goal - place).max() > 0:  # false for NaN too
            if steps == self.max_steps:
                raise ValueError(f"no end after max_steps={self.max_steps} steps; raise it, rtol or atol")
            taken = torch.minimum(length, left)
            low, high, before, after = self.attempt(denoise, x, place, taken, known)
            error = _rms(low - high) / (self.rtol * _rms(high)).clamp(min=self.atol)
            good = (error <= 1) & (left > 0)  # a sample that has arrived stays as it is
            pairs = zip((high, *after), (x, *before), strict=True)
            x, *known = (torch.where(expand_to(good, x).bool(), *pair) for pair in pairs)
            place = torch.where(good, torch.where(taken < left, place + taken, goal), place + 0 * error)
            # proportional-integral control of the next step (Hairer & Wanner 1996, IV.2)
            error = error.clamp(min=1e-9)
            change = error ** (-0.7 / self.error_order) * last_error ** (0.4 / self.error_order)
            length = taken * (0.9 * change).clamp(0.2, 5.0)
            last_error = torch.where(good, error, last_error)
            steps += 1
        if not torch.isfinite(place).all():
            raise FloatingPointError(
                "the network gave NaN or infinity; take an earlier checkpoint if its training diverged, or sample in "
                "float32 if it overflowed"
            )
        return x


def _rms(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).square().mean(dim=1).sqrt().double()
