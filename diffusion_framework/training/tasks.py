"""The tasks between optimizer steps: log, validate, save, preview."""

from __future__ import annotations

from collections.abc import Mapping


def due_tasks(step: int, every: Mapping[str, int | None], last: bool) -> set[str]:
    """Returns the tasks that are due after a step.

    Args:
        step: Number of optimizer steps taken.
        every: Number of optimizer steps between two runs of each task; 0 is never, None is the
            number of `save`.
        last: Whether the run ends after this step; all tasks are then due.
    """
    intervals = {name: every["save"] if n is None else n for name, n in every.items()}
    due = {name for name, n in intervals.items() if n and (last or step % n == 0)}
    return due | {"log"} if "save" in due else due


def tasks_now(due: set[str], stopped: bool) -> tuple[set[str], set[str]]:
    """Returns the tasks to do now, and those that a resumed run has to do.

    A stopped run saves at once, and leaves tasks that take long to the resumed run. A preview is
    drawn after the checkpoint is written, so that a killed run may have left it.

    Args:
        due: Tasks that are due.
        stopped: Whether a stop signal arrived.
    """
    now = due & {"log"} | {"save"} if stopped else due
    return now, (due - now) | (due & {"preview"})
