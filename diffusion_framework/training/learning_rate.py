"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from ..parts import nearest
from ..storage.config import import_path
from .checks import expect

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class LearningRate:
    """Learning rate schedule: a linear warm-up to the Trainer's `train_lr`, then a decay.

    Args:
        schedule: Learning rate after the warm-up: 'constant', or a 'linear' or 'cosine' decay to 0
            at the last step. A function of the completed share of training after the warm-up, in
            [0, 1], returns the share of `train_lr`.
        warmup_steps: Number of optimizer steps over which the learning rate rises from 0.

    Raises:
        ValueError: If a field is out of range.
    """

    schedule: Schedule | Callable[[float], float] = "constant"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        names = get_args(Schedule)
        known = callable(self.schedule) or self.schedule in names
        close = nearest(str(self.schedule), names)
        fix = f"write {close!r}" if close else "choose one of these, or give a function"
        expect(known, f"learning_rate.schedule among {', '.join(names)}", self.schedule, fix)
        if callable(self.schedule):
            for share in (0.0, 0.25, 0.5, 0.75, 1.0):
                self._share(share)
        wanted = "learning_rate.warmup_steps of at least 0"
        expect(self.warmup_steps >= 0, wanted, self.warmup_steps, "set it to 0 for no warm-up")

    def at(self, step: int, peak: float, *, num_steps: int) -> float:
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
        if callable(self.schedule):
            return peak * self._share(progress)
        if self.schedule == "linear":
            return peak * (1 - progress)
        return peak * 0.5 * (1 + math.cos(math.pi * progress))

    def _share(self, progress: float) -> float:
        """Returns the share of the peak that the function gives, after a check."""
        assert callable(self.schedule)
        share = self.schedule(progress)
        try:
            fits = 0 <= float(share) < math.inf
        except (TypeError, ValueError):
            fits = False
        wanted = f"a number of at least 0 from learning_rate.schedule({progress:.3g})"
        expect(fits, wanted, share, "return the share of train_lr, such as 1 - progress")
        return float(share)

    @property
    def described(self) -> str:
        """The name of the schedule; that of a function is followed by some of its values.

        Two functions of one name thus differ where their values do.
        """
        if not callable(self.schedule):
            return self.schedule
        shares = ", ".join(f"{self._share(i / 4):.6g}" for i in range(5))
        return f"{import_path(self.schedule)}: {shares}"
