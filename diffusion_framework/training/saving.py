"""Which checkpoints of a run are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..storage.checkpoint import Checkpoint, list_checkpoints, step_of
from .checks import expect


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
