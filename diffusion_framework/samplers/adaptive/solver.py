"""Base class of samplers with adaptive step sizes."""

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

Reused = Sequence[Tensor]
"""Predictions [batch, ...] at one position, kept by a solver for its next step."""


@dataclass(frozen=True)
class AdaptiveSolver(Sampler[None]):
    """Solver of the probability-flow ODE that takes its own steps inside each step of the grid.

    Each sample has its own step sizes, so that it does not depend on the rest of the batch. With a
    grid of one step, the solver chooses all steps. Derived classes define a step.

    Args:
        rtol: Tolerated error of a step relative to x, in root mean squares over a sample.
        atol: Smallest tolerated error of a step, in units of the data.
        first: Length of the first step, in the variable of the solver.
        end: sigma / alpha below which one first-order step leads to the clean end. The level at
            t = 0 replaces it if it is noisier. Raise `end` for a network that was not trained at
            this noise level.
        max_steps: Largest number of solver steps, including rejected ones, per step of the grid.

    Raises:
        ValueError: If an option is out of range, or max_steps do not suffice.
        FloatingPointError: If the network returned NaN or infinity.
    """

    rtol: float = 0.05
    atol: float = 0.0078
    first: float = 0.05
    end: float = 0.002
    max_steps: int = 10_000

    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not min(self.rtol, self.atol, self.first, self.end, self.max_steps) > 0:
            raise ValueError(f"Expected options above 0, got {self}. Fix: use the defaults.")

    @property
    @abstractmethod
    def error_order(self) -> int:
        """Exponent p with which the error of a step grows with its length h, as h^p."""

    @abstractmethod
    def position(self, at: Level) -> float:
        """Returns the position of a level in the solver's variable, which rises as noise falls."""

    @abstractmethod
    def attempt(
        self, denoise: Denoiser, x: Tensor, position: Tensor, length: Tensor, reused: Reused
    ) -> tuple[Tensor, Tensor, Reused, Reused]:
        """Tries one step for each sample.

        Args:
            denoise: Denoiser of the trajectory.
            x: Samples at `position`, [batch, ...].
            position: Position of each sample in the variable of the solver, float64 [batch].
            length: Length of each sample's step, float64 [batch].
            reused: Predictions kept at `position`, or () at the first step.

        Returns:
            x after a step of the lower order, x after a step of the higher order, and the
            predictions to keep at the start and at the end of the step.
        """

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        if not to.is_end:
            return self._solve(denoise, x, now, to), None
        last = denoise.schedule.at_log_snr(
            min(-2 * math.log(self.end), denoise.schedule.at(0.0).log_snr)
        )
        if last.log_snr > now.log_snr:
            x, now = self._solve(denoise, x, now, last), last
        return move(denoise(x, now), to), None

    def _solve(self, denoise: Denoiser, x: Tensor, now: Level, to: Level) -> Tensor:
        goal = self.position(to)
        position = torch.full((len(x),), self.position(now), dtype=torch.float64, device=x.device)
        length, last_error = torch.full_like(position, self.first), torch.ones_like(position)
        reused: Reused = ()
        steps = 0
        while (remaining := goal - position).max() > 0:  # also false for NaN
            if steps == self.max_steps:
                raise ValueError(
                    f"Expected to reach the end within max_steps={self.max_steps} steps, got more. "
                    "Fix: raise max_steps, rtol or atol."
                )
            tried = torch.minimum(length, remaining)
            low, high, at_start, at_end = self.attempt(denoise, x, position, tried, reused)
            error = _rms(low - high) / (self.rtol * _rms(high)).clamp(min=self.atol)
            accepted = (error <= 1) & (remaining > 0)  # a sample at its goal no longer changes
            pairs = zip((high, *at_end), (x, *at_start), strict=True)
            x, *reused = (torch.where(expand_to(accepted, x).bool(), *pair) for pair in pairs)
            reached = torch.where(tried < remaining, position + tried, goal)
            # a NaN error makes the position NaN, which ends the loop
            position = torch.where(accepted, reached, position + 0 * error)
            # Proportional-integral control of the next step (Hairer & Wanner 1996, IV.2).
            error = error.clamp(min=1e-9)
            change = error ** (-0.7 / self.error_order) * last_error ** (0.4 / self.error_order)
            length = tried * (0.9 * change).clamp(0.2, 5.0)
            last_error = torch.where(accepted, error, last_error)
            steps += 1
        if not torch.isfinite(position).all():
            raise FloatingPointError(
                "Expected finite predictions, got NaN or infinity from the network. Fix: use an "
                "earlier checkpoint if training diverged, or sample in float32 if it overflowed."
            )
        return x


def _rms(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).square().mean(dim=1).sqrt().double()
