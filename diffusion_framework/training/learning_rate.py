"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LearningRate:
    """A linear warm-up, then constant, or falling to 0 at the end.

    Args:
        peak: The highest.
        schedule: How it goes on after the warm-up: 'constant', 'linear' or 'cosine' (both to 0).
        warmup_steps: Steps over which it rises from 0.
        num_steps: Of the whole run.
    """

    peak: float
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: int
    num_steps: int

    def __call__(self, step: int) -> float:
        """The learning rate of step number `step`, from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.peak
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.peak * (1 - progress if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress)))
