"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .checks import expect

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class LearningRate:
    """Learning rate schedule: a linear warm-up to the Trainer's `train_lr`, then a decay.

    Args:
        schedule: Learning rate after the warm-up: 'constant', or a 'linear' or 'cosine' decay to 0
            at the last step.
        warmup_steps: Number of optimizer steps over which the learning rate rises from 0.

    Raises:
        ValueError: If a field is out of range.
    """

    schedule: Schedule = "constant"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        names = ", ".join(get_args(Schedule))
        known = self.schedule in get_args(Schedule)
        expect(known, f"learning_rate.schedule among {names}", self.schedule, "choose one of these")
        wanted = "learning_rate.warmup_steps of at least 0"
        expect(self.warmup_steps >= 0, wanted, self.warmup_steps, "set it to 0 for no warm-up")

    def at(self, step: int, *, peak: float, num_steps: int) -> float:
        """Returns the learning rate of optimizer step `step`, counted from 0.

        Args:
            step: Number of optimizer steps already taken.
            peak: Highest learning rate.
            num_steps: Number of optimizer steps of the whole run.
        """
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return peak
        progress = (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)
        if self.schedule == "linear":
            return peak * (1 - progress)
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
