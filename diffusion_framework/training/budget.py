"""The length of a run in optimizer steps, which a time in minutes becomes once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from ..storage.checkpoint import Checkpoint
from .learning_rate import LearningRate
from .loading import LoadedBatches
from .signals import NotedSignals
from .state import TrainingState
from .step import TrainingStep
from .stopping import Guard

_WARM_UP = 3  # steps before the measurement: memory is allocated, kernels are chosen or compiled
_FEWEST, _SHARE = 5, 0.03  # steps of the measurement, and its share of the time
_SHORTEST, _LONGEST = 0.5, 60.0  # seconds of the measurement


class Budget:
    """The number of optimizer steps of a run: a given one, or as many as a time allows.

    The steps of a time are measured once, at the start of a new run. Checkpoints keep their number,
    so that a resumed run ends at the same step with the same learning rates.

    Args:
        steps: Number of optimizer steps. With `minutes` it stands until they are measured.
        minutes: Time for the steps in minutes, or None.

    Attributes:
        known: Whether `steps` is final.
    """

    def __init__(self, steps: int, minutes: float | None) -> None:
        self.steps, self.minutes, self.known = steps, minutes, minutes is None

    def progress(self, step: int) -> float:
        """Returns the share of training that is done after a step, in [0, 1]."""
        return step / self.steps

    def rate(self, schedule: LearningRate, step: int, peak: float) -> float:
        """Returns the learning rate of a step, counted from 0, by its schedule and peak."""
        return schedule.at(step, peak, num_steps=self.steps)

    def settle(self, steps: int) -> None:
        """Sets the number of steps for good."""
        self.steps, self.known = steps, True

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Takes the number of steps from a checkpoint, in proportion if the time has changed.

        Raises:
            ValueError: If a time is given for a run that began with a number of steps.
        """
        if self.minutes is None or checkpoint is None:
            return
        before = checkpoint.state.get("budget")
        if before is None:
            raise ValueError(
                f"{checkpoint.path}: expected a run that began with minutes, got one with a number "
                "of steps. Fix: resume it with train_num_steps instead of minutes."
            )
        self.settle(max(1, round(before["steps"] * self.minutes / before["minutes"])))

    @property
    def numbers(self) -> dict[str, Any]:
        """What a checkpoint holds: the time and its steps, or nothing without a time."""
        told = {"minutes": self.minutes, "steps": self.steps}
        return {} if self.minutes is None else {"budget": told}

    def measure(
        self,
        take: TrainingStep,
        state: TrainingState,
        load: Callable[[], AbstractContextManager[LoadedBatches]],
        timeout: float,
    ) -> None:
        """Measures how many steps take the given time, if that is not known, and takes them back.

        The time of the measurement is part of the given time. Processes agree on the number.

        Args:
            take: Takes a step.
            state: State of a run before its first step.
            load: Function that opens the batches of this process, from the first one on.
            timeout: Seconds to wait for another process.

        Raises:
            FloatingPointError: If a step is not finite.
            InvalidSampleError: If a sample is invalid; it names the sample.
        """
        if self.known or self.minutes is None:
            return
        began, limit = time.monotonic(), 60 * self.minutes
        with state.taken_back(), NotedSignals() as signals, load() as batches:
            guard = Guard(state.accelerator, signals, False, timeout)
            try:
                for _ in range(_WARM_UP):
                    take(state, batches, guard)
                wanted = min(max(_SHORTEST, _SHARE * limit), _LONGEST)
                each = _seconds(lambda: take(state, batches, guard), state, guard, wanted)
            except Exception as error:
                batches.find_cause(error, state.model.check)
                raise
        left = limit - (time.monotonic() - began)
        agreed = [max(1, int(left / each))]
        if state.accelerator.num_processes > 1:
            broadcast_object_list(agreed)
        self.settle(agreed[0])


def _seconds(step: Callable[[], Any], state: TrainingState, guard: Guard, wanted: float) -> float:
    """Returns the mean seconds of a step, measured for the wanted seconds."""
    began, count, enough = time.monotonic(), 0, False
    while count < _FEWEST or not enough:
        step()
        count += 1
        enough = guard.together.all(time.monotonic() - began > wanted)
    if state.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.monotonic() - began) / count
