"""Callbacks: the user's code in the training loop, and the view of the run that it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ..trainable import Trainable
from .checks import expect
from .log import TrainingLog
from .stopping import Guard
from .tasks import Tasks


@dataclass(frozen=True)
class Run:
    """A training run as a callback sees it.

    Attributes:
        step: Number of optimizer steps taken.
        num_steps: Number of optimizer steps of the whole run.
        model: Model in training.
        averaged: Model with the averaged weights (EMA), from which samples are drawn.
        results_folder: Folder for all files of the run.
        is_main_process: Whether this process is the one that writes files.
        loss: Loss of the last step over all processes, a scalar on the device; None before the
            first step. Reading its value waits for the device.
        learning_rate: Learning rate of the last step.
        metrics: Metrics of the last validation by name; empty before the first one.
    """

    step: int
    num_steps: int
    model: Trainable
    averaged: Trainable
    results_folder: Path
    is_main_process: bool
    loss: Tensor | None
    learning_rate: float
    metrics: Mapping[str, float]
    _asked: set[str] = field(repr=False)
    _log: Callable[[Mapping[str, float], int], None] = field(repr=False)

    def save(self) -> None:
        """Asks for a checkpoint after this step, on all processes if one asks."""
        self._asked.add("save")

    def stop(self) -> None:
        """Asks the run to end after this step as after its last one, on all processes."""
        self._asked.add("stop")

    def log(self, values: Mapping[str, float]) -> None:
        """Hands numbers to the trackers of the run, such as TensorBoard."""
        self._log(values, self.step)


@runtime_checkable
class Callback(Protocol):
    """Code that a Trainer calls on all processes of a run.

    A class derived from this one needs only the methods that it uses. An error ends the run on all
    processes, with its last whole state saved. Without the other processes, a method must not call
    an operation of all of them, such as an all-reduce.
    """

    def on_start(self, run: Run) -> None:
        """Is called before the first step, also of a resumed run."""
        return

    def on_step(self, run: Run) -> None:
        """Is called after each optimizer step, before its validation, checkpoint and preview."""
        return

    def on_end(self, run: Run) -> None:
        """Is called after the last step and all files, not after an error or a signal."""
        return


class Callbacks:
    """Calls the callbacks of a run on all processes together.

    Args:
        each: Callbacks, in the order of their calls.
        tasks: Tasks of the run.

    Attributes:
        are_called: Whether a callback is being called.

    Raises:
        ValueError: If a callback lacks a method.
    """

    def __init__(self, each: Sequence[Callback], tasks: Tasks) -> None:
        fits, fix = isinstance(each, list | tuple), "write callbacks=[...]"
        expect(fits, "callbacks in a list", type(each).__name__, fix)
        for one in each:
            fix = "derive its class from training.Callback, which has all three methods"
            if isinstance(one, type):
                fix = f"make one by {one.__name__}(...)"
            fits = isinstance(one, Callback) and not isinstance(one, type)
            expect(fits, "callbacks with on_start, on_step and on_end", one, fix)
        self.each, self.tasks = tuple(each), tasks
        self.are_called = False

    def call(
        self,
        method: Callable[[Callback, Run], None],
        guard: Guard,
        log: TrainingLog,
        loss: Tensor | None = None,
    ) -> set[str]:
        """Calls a method of each callback, and returns what any of them has asked for.

        Args:
            method: Calls the method of a callback with the view of the run.
            guard: Guard of the run.
            log: Log of the run.
            loss: Loss of the last step.
        """
        if not self.each:
            return set()
        asked: set[str] = set()
        run = self._view(loss, asked, log.track)

        def work() -> None:
            self.are_called = True
            try:
                for callback in self.each:
                    method(callback, run)
            finally:
                self.are_called = False

        guard.together(work)
        return {what for what in ("save", "stop") if guard.together.any(what in asked)}

    def _view(self, loss: Tensor | None, asked: set[str], track: Any) -> Run:
        tasks, state = self.tasks, self.tasks.state
        rate = tasks.learning_rate(max(state.step - 1, 0), state.peaks[0])
        return Run(
            step=state.step,
            num_steps=tasks.budget.steps,
            model=state.model,
            averaged=state.averaged,
            results_folder=tasks.folder,
            is_main_process=state.accelerator.is_main_process,
            loss=loss,
            learning_rate=rate,
            metrics=dict(tasks.metrics),
            _asked=asked,
            _log=track,
        )
