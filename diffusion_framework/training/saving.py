"""Writes and keeps the checkpoints of a run."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..losses import LEVEL_NAMES
from ..parts import nearest
from ..storage.checkpoint import Checkpoint, list_checkpoints, step_of
from ..storage.config import to_config
from ..storage.writing import check_space, delete_old, write_checkpoint
from .checks import expect
from .state import TrainingState


@dataclass(frozen=True)
class Saving:
    """Options for keeping the checkpoints, one of which is written every `save_and_sample_every`.

    Args:
        keep_newest: Number of newest checkpoints to keep.
        keep_best: Number of best checkpoints to keep in addition, by `best_metric`.
        best_metric: Column of `validation.csv` that ranks checkpoints, the smaller the better:
            validation_loss, frechet with quality.samples, or action_error for policies.

    Raises:
        ValueError: If a field is out of range.
    """

    keep_newest: int = 3
    keep_best: int = 0
    best_metric: str = "validation_loss"

    def __post_init__(self) -> None:
        wanted = "saving.keep_newest of at least 1"
        expect(self.keep_newest >= 1, wanted, self.keep_newest, "set it to 1 to keep the last")
        wanted = "saving.keep_best of at least 0"
        expect(self.keep_best >= 0, wanted, self.keep_best, "set it to 0 to keep only the newest")

    def check(
        self,
        metric_names: Sequence[str],
        validation: Any,
        validate_every: int | None,
        save_every: int,
    ) -> None:
        """Raises ValueError if best_metric is unknown, or not every checkpoint is validated.

        Args:
            metric_names: Names of the model's metrics.
            validation: Validation data, or None.
            validate_every: Number of optimizer steps between two validations; None is save_every.
            save_every: Number of optimizer steps between two checkpoints.
        """
        if not self.keep_best and self.best_metric == Saving.best_metric:
            return
        close = nearest(self.best_metric, metric_names)
        fix = f"write {close}" if close else "choose one of these"
        known = self.best_metric in metric_names
        names = ", ".join(name for name in metric_names if name not in LEVEL_NAMES)
        expect(known, f"saving.best_metric among {names}", self.best_metric, fix)
        if not self.keep_best:
            return
        fix = "give validation, or set saving.keep_best to 0"
        expect(validation is not None, "validation data where saving.keep_best is set", None, fix)
        fits = validate_every is None or (validate_every > 0 and save_every % validate_every == 0)
        wanted = f"validation_options.every that divides save_and_sample_every {save_every}"
        fix = "leave validation_options.every out, or set saving.keep_best to 0"
        expect(fits, f"{wanted}, as saving.keep_best is set", validate_every, fix)

    def check_space(self, folder: Path, size: int, count: int) -> None:
        """Raises ValueError if the disk has no space for the checkpoints that are kept.

        Args:
            folder: Results folder.
            size: Size of one checkpoint in bytes.
            count: Number of checkpoints that the run writes.
        """
        most = min(self.keep_newest + 1, count)  # a new one is written before an old one is deleted
        check_space(folder, size, max(1, most - len(list_checkpoints(folder))))

    def write(
        self,
        folder: Path,
        state: TrainingState,
        config: Mapping[str, Any],
        numbers: Mapping[str, Any],
        run: Callable[..., Any],
    ) -> None:
        """Writes a checkpoint on the main process, and deletes old ones.

        Args:
            folder: Results folder.
            state: Training state to save.
            config: All options that build the run.
            numbers: Further content of the checkpoint, as plain data; its `metrics` decide whether
                it is among the best.
            run: Runs the writing, such as `Together` for all processes.

        Raises:
            OSError: If the checkpoint cannot be written. Earlier ones are then unchanged.
        """
        tensors = state.tensors()
        numbers = to_config({**state.numbers(), **numbers})  # NumPy's numbers become Python's

        def write() -> None:
            if not state.accelerator.is_main_process:
                return
            best = self.best_steps(folder, state.step, numbers["metrics"])
            options = self.keep_newest, best
            try:
                write_checkpoint(folder, state.step, tensors, config, numbers, *options)
            except OSError as error:
                raise _no_space(folder, state, error) from error

        run(write)

    def write_snapshot(self, folder: Path, state: TrainingState, run: Callable[..., Any]) -> None:
        """Writes a snapshot of the averages with profiles; takes and raises the same as `write`."""
        profiles = state.profiles
        if profiles.step in (0, *profiles.snapshots):
            return
        tensors = state.gathered(profiles.tensors())

        def write() -> None:
            try:
                main = state.accelerator.is_main_process
                checksum = profiles.write_snapshot(folder, tensors) if main else ""
            except OSError as error:
                raise _no_space(folder, state, error) from error
            profiles.snapshots[profiles.step] = checksum

        run(write)

    def delete_old(self, checkpoint: Checkpoint) -> None:
        """Deletes what a killed run had no time to delete after it wrote a checkpoint."""
        folder, metrics = checkpoint.path.parent.parent, checkpoint.state["metrics"]
        delete_old(
            checkpoint.path, self.keep_newest, self.best_steps(folder, checkpoint.step, metrics)
        )

    def best_steps(self, folder: Path, step: int, metrics: dict[str, float]) -> list[int]:
        """Returns the steps of the best `keep_best` checkpoints.

        Candidates are the checkpoints in the results folder, each of which holds its own metrics,
        and the checkpoint about to be written.

        Args:
            folder: Results folder.
            step: Step of the checkpoint about to be written.
            metrics: Metrics of that checkpoint by name; one that is missing or not finite is never
                best.
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


def _no_space(folder: Path, state: TrainingState, error: OSError) -> OSError:
    """Returns the error of a checkpoint that could not be written, most often for lack of space."""
    kept = ", ".join(str(step_of(path)) for path in list_checkpoints(folder))
    free = shutil.disk_usage(folder).free
    cause = str(error.__cause__ or error)
    return OSError(
        f"{folder}: expected to write the checkpoint of step {state.step}, which takes "
        f"{state.size() / 1e6:.3g} MB, got an error ({cause}) with {free / 1e6:.0f} MB free. Kept "
        f"are the checkpoints of the steps {kept or 'none'}. Fix: free disk space, and resume."
    )
