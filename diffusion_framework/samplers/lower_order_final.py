"""`LowerOrderFinal`, which lowers the order of a multistep sampler at the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from .base import Sampler
from .dpm_solver import DPMSolver
from .unipc import UniPC

State = tuple[int, int, Any]  # number of steps, number of steps left, state of the wrapped sampler


@dataclass(frozen=True)
class LowerOrderFinal(Sampler[State]):
    """Wraps a multistep sampler and lowers its order by one at each of the last steps.

    This is the option `lower_order_final` of diffusers.

    Args:
        sampler: Sampler that takes the steps; its order is the highest order used.
        below: Number of sampler steps from which on the order is never lowered.
        last: Order of the last step.
    """

    sampler: DPMSolver | UniPC = field(default_factory=DPMSolver)
    below: int = 15
    last: int = 1

    def init(self, steps: int) -> State:
        return steps, steps, self.sampler.init(steps)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        steps, left, inner = state
        order = (
            min(self.sampler.order, self.last + left - 1)
            if steps < self.below
            else self.sampler.order
        )
        x, inner = replace(self.sampler, order=order).step(denoise, x, now, to, inner, noise)
        return x, (steps, left - 1, inner)
