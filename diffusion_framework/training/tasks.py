"""The tasks between optimizer steps: log, validate, save, preview."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..data import TrainingDataset
from ..process.noise import mix
from ..storage.checkpoint import Checkpoint
from ..storage.labelled import labelled_grid
from .budget import Budget
from .checks import expect
from .log import TrainingLog
from .previews import Asked, Previews
from .quality import QualityInTraining
from .saving import Saving
from .seeds import Purpose
from .signals import NotedSignals
from .state import TrainingState
from .stopping import Guard
from .together import Together
from .validation import ValidationOptions


def due_tasks(
    step: int, every: Mapping[str, int | None], last: bool, save: bool = False
) -> set[str]:
    """Returns the tasks that are due after a step.

    Args:
        step: Number of optimizer steps taken.
        every: Number of optimizer steps between two runs of each task; 0 is never, None is the
            number of `save`.
        last: Whether the run ends after this step; all tasks but a snapshot are then due.
        save: Whether a checkpoint is due in any case.
    """
    intervals = {name: every["save"] if n is None else n for name, n in every.items()}
    at_end = {*intervals} - {"snapshot"} if last else set()  # the checkpoint holds the averages
    due = {name for name, n in intervals.items() if n and (name in at_end or step % n == 0)}
    due |= {"save"} if save else set()
    return due | {"log"} if "save" in due else due


@dataclass
class Tasks:
    """Does the tasks of a run, and records in its checkpoints those that are due but not done.

    Args:
        state: State of the run.
        folder: Results folder.
        config: All options that build the run.
        numbers: Further content of the checkpoints, as plain data.
        budget: Length of the run.
        seed: Seed of the run.
        batch_size: Number of samples of a batch over all processes.
        validation: Validation data, or None.
        conditions: Dataset that provides the conditions of previews.
        num_samples: Number of images in a preview.
        validation_options: Options of the validation.
        quality: Measurement of samples at each validation.
        previews: Options of the previews.
        saving: Options of the checkpoints.
        learning_rate: Function from the step, counted from 0, and the peak to its learning rate.
        metrics: Metrics of the last validation by name.
        left: Tasks that are due after the last step taken and not done yet.
        saved: Step of the last checkpoint, also of one that could not be written.
    """

    state: TrainingState
    folder: Path
    config: Mapping[str, Any]
    numbers: Mapping[str, Any]
    budget: Budget
    seed: int
    batch_size: int
    validation: TrainingDataset | None
    conditions: TrainingDataset
    num_samples: int
    validation_options: ValidationOptions
    quality: QualityInTraining
    previews: Previews
    saving: Saving
    learning_rate: Callable[[int, float], float]
    metrics: Mapping[str, float] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    saved: int = 0

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Takes over the metrics of the checkpoint from which the run resumes, if any."""
        self.saved = self.state.step
        self.metrics = {} if checkpoint is None else checkpoint.state["metrics"]

    def do(self, tasks: Collection[str], guard: Guard, log: TrainingLog) -> None:
        """Does tasks, on all processes together."""
        began = time.perf_counter()
        self.left = set(tasks)
        # Sharded weights are gathered inside, so that no process may leave on its own.
        together = partial(guard.together, stoppable=not self.state.sharded)
        if "log" in tasks:
            rate = self.learning_rate(self.state.step - 1, self.state.peaks[0])
            guard.together(partial(log.write, self.state.step, rate))
            began = time.perf_counter()
            self.left -= {"log"}
        metrics = {}
        if {"save", "snapshot"} & {*tasks}:
            guard.together(self._check_finite)
        if "snapshot" in tasks:
            self.saving.write_snapshot(self.folder, self.state, guard.together)
            self.left -= {"snapshot"}
        if "validate" in tasks:
            self.metrics = metrics = self._validate(log, together)
            self.left -= {"validate"}
        if "save" in tasks:
            self.save(log, metrics, guard.together)
        if "preview" in tasks:
            self._preview(log, together)
            self.left -= {"preview"}
        log.pause(time.perf_counter() - began)

    def do_left(self, checkpoint: Checkpoint, guard: Guard, log: TrainingLog) -> None:
        """Does the tasks that the run of a checkpoint left, other than a preview that is drawn."""
        main = self.state.accelerator.is_main_process
        guard.together(partial(self.saving.delete_old, checkpoint) if main else lambda: None)
        path = self.previews.path(self.folder, self.state.step)
        self.do(self.previews.undone(checkpoint.state["left"], path), guard, log)

    def save(
        self, log: TrainingLog | None, metrics: Mapping[str, float], together: Callable[..., Any]
    ) -> None:
        """Writes a checkpoint.

        Args:
            log: Log of the run; None between two calls of `train`, when nothing is unwritten.
            metrics: Metrics of the last step by name.
            together: Runs the writing, such as `Together` for all processes.
        """
        self.left, self.saved = self.left - {"save"}, self.state.step
        numbers = {
            **self.numbers,
            **self.budget.numbers,
            "metrics": dict(metrics),
            "left": sorted(self.left),
        }
        numbers["unwritten"] = [] if log is None else log.unwritten()
        self.saving.write(self.folder, self.state, self.config, numbers, together)
        if log is not None:
            log.saved(self.state.step)

    def save_between(self, in_callback: bool, timeout: float) -> None:
        """Writes a checkpoint between two calls of `train`, unless this step has one.

        Args:
            in_callback: Whether a callback is asking, within a call.
            timeout: Seconds to wait for another process.

        Raises:
            ValueError: If a callback is asking, or no step was taken.
        """
        got, fix = f"one at step {self.state.step}", "train first, or use run.save()"
        expect(self.state.step > 0 and not in_callback, "a run that paused", got, fix)
        together = Together(self.state.accelerator, NotedSignals(), timeout)
        if self.saved != self.state.step:
            self.save(None, {}, together)

    def _check_finite(self) -> None:
        """Raises FloatingPointError if a weight is not finite; no checkpoint may hold it."""
        if not self.state.sharded and not self.state.is_finite():
            raise FloatingPointError(
                f"Expected finite weights after step {self.state.step}, got NaN or infinity. "
                "Fix: resume from the last checkpoint with a smaller train_lr."
            )

    def _validate(self, log: TrainingLog, together: Callable[..., Any]) -> dict[str, float]:
        """Measures the averaged weights on the validation data and logs the metrics."""
        if self.validation is None:
            return {}
        options = self.batch_size, self.seed, self.state.accelerator, together
        metrics = self.validation_options.measure(self.state.averaged, self.validation, *options)
        shared = self.conditions, self.state.accelerator, together
        metrics |= self.quality.measure(self.state.averaged, *shared)
        together(partial(log.write_metrics, self.state.step, metrics))
        return metrics

    def _preview(self, log: TrainingLog, together: Callable[..., Any]) -> None:
        """Draws and logs a grid of samples, if they are images."""
        options = self.num_samples, mix(self.seed, Purpose.SAMPLE), self.state.accelerator, together
        images = self.previews.draw(self.state.averaged, self.conditions, *options)
        path = self.previews.path(self.folder, self.state.step)
        columns = len(self.conditions.class_names or ()) or None  # a column for each class

        def write() -> None:
            if images is not None and self.state.accelerator.is_main_process:
                asked = Asked.of(self.state.averaged, self.conditions, len(images))
                shown = labelled_grid(images, asked.texts, asked.beside, columns)
                log.write_preview(shown, path, self.state.step)

        together(write)
