from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from ..samplers import DPMSolver, Sampler, UniPC

State = tuple[int, int, Any]  # number of steps, of those left, state of the sampler inside


@dataclass(frozen=True)
class LowerOrderFinal(Sampler[State]):
    """A multistep sampler whose order falls over its last steps, by one a step.

    Args:
        sampler: What steps, its order the highest.
        below: Only in trajectories of fewer steps than this.
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
        order = min(self.sampler.order, self.last + left - 1) if steps < self.below else self.sampler.order
        x, inner = replace(self.sampler, order=order).step(denoise, x, now, to, inner, noise)
        return x, (steps, left - 1, inner)
