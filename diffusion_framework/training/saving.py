"""The checkpoints of a run: written, kept, and found again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..storage.checkpoint import Checkpoint, list_checkpoints, newest_whole_checkpoint, step_of
from ..storage.writing import check_space, write_checkpoint
from .checks import expect
from .distributed import on_main_process
from .options import changed_options, differences
from .state import TrainingState


@dataclass(frozen=True)
class Saving:
    """Which checkpoints are kept, of those written every `save_and_sample_every` steps.

    Args:
        keep_newest: Number of checkpoints to keep, the newest.
        keep_best: Number of checkpoints to keep besides, the best by `best_metric`.
        best_metric: Column of `validation.csv` that tells which are best, the smaller the better:
            validation_loss, or action_error for policies.

    Raises:
        ValueError: a field out of range.
    """

    keep_newest: int = 3
    keep_best: int = 0
    best_metric: str = "validation_loss"

    def __post_init__(self) -> None:
        wanted = "saving.keep_newest of at least 1"
        expect(self.keep_newest >= 1, wanted, self.keep_newest, "1 keeps the last checkpoint alone")
        wanted = "saving.keep_best of at least 0"
        expect(self.keep_best >= 0, wanted, self.keep_best, "0 keeps the newest alone")

    def check(
        self,
        metric_names: Sequence[str],
        validation: Any,
        validate_every: int | None,
        save_every: int,
    ) -> None:
        """Raises ValueError if best checkpoints are to be kept and not each is measured.

        Args:
            metric_names: Metrics that the model has.
            validation: The validation data, or None.
            validate_every: Optimizer steps between two measurements; None is save_every.
            save_every: Optimizer steps between two checkpoints.
        """
        if not self.keep_best:
            return
        fix = "give validation, or set saving.keep_best to 0"
        expect(validation is not None, "validation data where saving.keep_best is set", None, fix)
        fits = validate_every is None or (validate_every > 0 and save_every % validate_every == 0)
        wanted = f"validation_options.every that divides save_and_sample_every {save_every}"
        fix = "leave validation_options.every out, or set saving.keep_best to 0"
        expect(fits, f"{wanted}, as saving.keep_best is set", validate_every, fix)
        known, names = self.best_metric in metric_names, ", ".join(metric_names)
        expect(known, f"saving.best_metric among {names}", self.best_metric, "take one of these")

    def check_space(self, folder: Path, size: int, count: int) -> None:
        """Raises ValueError if the disk has no room for the checkpoints that are kept.

        Args:
            folder: The results folder.
            size: Bytes of one checkpoint.
            count: Number of checkpoints that the run writes.
        """
        most = min(self.keep_newest + 1, count)  # one more than are kept, while it is written
        check_space(folder, size, max(1, most - len(list_checkpoints(folder))))

    def write(
        self,
        folder: Path,
        state: TrainingState,
        config: Mapping[str, Any],
        numbers: Mapping[str, Any],
        accelerator: Accelerator,
    ) -> None:
        """Writes a checkpoint and deletes those that are not kept. All processes must call it.

        Args:
            folder: The results folder.
            state: What the run has changed.
            config: What built the run.
            numbers: What the checkpoint says besides, as plain data; its `metrics` decide whether
                it is among the best.
            accelerator: The run's.

        Raises:
            OSError: it could not be written.
        """
        tensors, numbers = state.tensors(), {**state.numbers(), **numbers}

        def write() -> None:
            best = self.best_steps(folder, state.step, numbers["metrics"])
            write_checkpoint(folder, state.step, tensors, config, numbers, self.keep_newest, best)

        on_main_process(accelerator, write)

    def best_steps(self, folder: Path, step: int, metrics: dict[str, float]) -> list[int]:
        """Returns the steps of the best `keep_best` checkpoints.

        Candidates are the checkpoints in the results folder, each of which holds its own metrics,
        and the one about to be written.

        Args:
            folder: The results folder.
            step: Step of the checkpoint about to be written.
            metrics: Its metrics by name; a metric that is missing or not finite is never best.
        """
        values = {step: metrics.get(self.best_metric, math.inf)}
        for path in list_checkpoints(folder) if self.keep_best else ():
            if step_of(path) < step:
                try:
                    theirs = Checkpoint.open(path).state.get("metrics", {})
                except ValueError:  # a damaged checkpoint is not worth keeping
                    continue
                values[step_of(path)] = theirs.get(self.best_metric, math.inf)
        finite = {at: value for at, value in values.items() if math.isfinite(value)}
        return sorted(finite, key=lambda at: finite[at])[: self.keep_best]


def resumable(
    folder: Path, resume: bool, config: Mapping[str, Any], order: Mapping[str, Any]
) -> Checkpoint | None:
    """Returns the checkpoint that a run goes on from, or None where a new one may begin.

    A setting that changed and makes the run go on in another way is warned about.

    Args:
        folder: The results folder.
        resume: Whether the user asked to go on.
        config: What builds the run now.
        order: What decides which samples a step sees, with what noise and how exactly, now.

    Raises:
        ValueError: the folder holds a run and resume is not set, or one of another model, or no
            whole checkpoint.
    """
    if not list_checkpoints(folder):
        return None
    if not resume:
        raise ValueError(
            f"Expected an empty results_folder, got {folder}, which already holds a run. Fix: "
            f"resume it, or choose "
            "another results_folder."
        )
    checkpoint = newest_whole_checkpoint(folder)
    if different := list(differences(checkpoint.config["diffusion"], config["diffusion"])):
        raise ValueError(
            f"Expected a checkpoint of this model, got {checkpoint.path} of another "
            f"({'; '.join(different)}). Fix: "
            "resume it with its own settings, or choose another results_folder."
        )
    different = list(differences(checkpoint.state["order"], order))
    different += changed_options(checkpoint.config["trainer"], config["trainer"])
    if different:
        warnings.warn(f"not the same run as before: {'; '.join(different)}", stacklevel=4)
    return checkpoint
