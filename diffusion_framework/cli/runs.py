"""The command that lists runs."""

from __future__ import annotations

import json as json_format
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..parts import unknown_name
from ..storage.checkpoint import CHECKPOINTS, Checkpoint, list_checkpoints
from ..storage.description import Description, printable
from ..storage.figures import best_metrics, last_loss
from ..training.run_lock import is_locked

_FIRST = ("run", "status", "steps", "loss")
_DEEPEST = 8  # folders between the given one and a run
_MOST = 2000  # runs


@dataclass(frozen=True)
class _Row:
    """A run in the table; `broken` says why it cannot be read."""

    run: str
    status: str
    steps: int = 0
    num_steps: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    broken: str = ""

    def value(self, column: str) -> Any:
        """Returns the value of a column; None where there is none."""
        own = {"run": self.run, "status": self.status, "steps": self.steps}
        return own.get(column, self.figures.get(column))


def runs(
    folder: str = "results",
    *,
    sort: str = "run",
    json: bool = False,
) -> None:
    """Prints a table of the runs in a folder and its sub-folders, with their figures.

    The loss is the last one, and the metrics of the validation are the best ones. A run is
    finished, stopped before its last step, running, or broken.

    Examples:
      diffusion runs
      diffusion runs experiments --sort validation_loss

    Args:
        folder: Folder to search.
        sort: Column to sort by, smallest first: run, status, steps, loss or a metric.
        json: Whether to print JSON.
    """
    top = Path(folder)
    if not top.is_dir():
        raise ValueError(
            f"FOLDER: expected an existing folder, got {folder}. Fix: give the folder that holds "
            "the results folders of the runs."
        )
    found = [_row(path, top) for path in _run_folders(top)]
    if not found:
        raise ValueError(f"{folder}: expected runs, got none. Fix: give a folder that holds some.")
    metrics = dict.fromkeys(name for row in found for name in row.figures if name != "loss")
    columns = [*_FIRST, *metrics]
    if sort not in columns:
        raise unknown_name("--sort", "a column of the table", sort, columns)
    found.sort(key=lambda row: _order(row.value(sort)))
    if json:
        told = [{**{c: row.value(c) for c in columns}, "broken": row.broken} for row in found]
        print(json_format.dumps(told, indent=2))
        return
    table = [columns, *([_shown(row, column) for column in columns] for row in found)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line, broken in zip(table, ["", *(row.broken for row in found)], strict=True):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([*cells, broken]).rstrip())


def _order(value: Any) -> tuple[bool, float, str]:
    """Returns a key that sorts numbers and words, and puts what is unknown last."""
    return (value is None, value if isinstance(value, int | float) else math.inf, str(value))


def _shown(row: _Row, column: str) -> str:
    value = row.value(column)
    if column == "steps" and row.num_steps is not None:
        return f"{value} of {row.num_steps}"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _run_folders(top: Path) -> Iterator[Path]:
    """Yields the results folders below a folder in order; links are not followed."""
    count = 0
    for place, folders, files in os.walk(top):
        depth = len(Path(place).relative_to(top).parts)
        if CHECKPOINTS in folders or "log.csv" in files:
            yield Path(place)
            folders[:] = []
            count += 1
        if depth >= _DEEPEST or count >= _MOST:
            folders[:] = []
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _row(path: Path, top: Path) -> _Row:
    """Returns the row of a results folder; a damaged one becomes a broken run."""
    name = printable(str(path.relative_to(top)), 80)
    running = is_locked(path)
    try:
        if running and not list_checkpoints(path):
            return _Row(name, "running", figures=_figures(path))
        told = Description.of(Checkpoint.find(path))
    except (ValueError, OSError) as error:
        cause = str(error).replace(f"{path}{os.sep}", "")  # the row names the run
        cause = printable(" ".join(cause.split()), 120)
        return _Row(name, "broken", figures=_figures(path), broken=cause)
    finished = told.num_steps is not None and told.steps >= told.num_steps
    status = "running" if running else "finished" if finished else "stopped"
    return _Row(name, status, told.steps, told.num_steps, _figures(path))


def _figures(path: Path) -> dict[str, float]:
    loss = last_loss(path)
    best = {printable(name, 30): value for name, value in best_metrics(path).items()}
    return ({} if loss is None else {"loss": loss}) | best
