"""The one way in which a run leaves its loop early: with its last whole state saved."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..storage.checkpoint import list_checkpoints, step_of
from .distributed import ProcessFailed
from .launching import explained
from .signals import Interrupted, end_run
from .state import TrainingState
from .stopping import Guard

_ANSWER = 10.0  # seconds in which a device must finish a step that another process may have left


def leave(
    error: BaseException,
    state: TrainingState,
    saved: int,
    guard: Guard,
    save: Callable[[Callable[..., Any]], None],
    find_cause: Callable[[BaseException], None],
) -> None:
    """Saves the state of a run that leaves its loop, and looks for the cause of its error.

    Args:
        error: Error or signal for which the run leaves.
        state: State of the run.
        saved: Step of the last checkpoint, also of one that could not be written.
        guard: Guard of the run.
        save: Function that writes a checkpoint, with the function that runs the writing.
        find_cause: Function that raises a clearer error if it finds one.

    Raises:
        OSError: If a run that was only stopped cannot be saved.
        Exception: If `find_cause` raises it.
    """
    agreed = guard.together.agreed(error)
    saves = _may_save(state, saved, error, guard)
    if agreed:
        saves = guard.together.all(saves)
    if saves:
        try:
            save(guard.together if agreed else lambda write: write())
        except OSError as failure:
            if isinstance(error, Interrupted):
                raise
            if state.accelerator.is_main_process:
                print(f"not saved: {failure}", file=sys.stderr)
    if agreed and not isinstance(error, Interrupted):
        guard.together(lambda: find_cause(error))


def _may_save(state: TrainingState, saved: int, error: BaseException, guard: Guard) -> bool:
    """Returns whether the state is whole, finite and newer than the last checkpoint.

    Without the other processes, only the main process can save, and only weights that are not
    sharded.
    """
    if guard.together.signals.ended or not state.whole or state.step <= saved:
        return False
    if isinstance(error, FloatingPointError):
        return False
    if not guard.together.agreed(error):
        alone = state.accelerator.is_main_process and not state.sharded
        if not alone or not guard.settles_within(_ANSWER):
            return False
    try:
        guard.settle()
    except FloatingPointError:
        return False
    return state.sharded or state.is_finite()


@contextmanager
def ended_in_words(state: TrainingState, folder: Path) -> Iterator[None]:
    """Ends a stopped run with the code of the signal, and names lost processes in errors.

    Args:
        state: State of the run.
        folder: Results folder.

    Raises:
        ProcessFailed: If an operation of several processes failed.
        OSError: If a file could not be written; a full disk is named with what is kept.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "Fix: " in str(error):
            raise
        kept = ", ".join(str(step_of(path)) for path in list_checkpoints(folder))
        raise OSError(
            f"{folder}: expected to write the files of the run, got an error ({error}) with "
            f"{shutil.disk_usage(folder).free / 1e6:.0f} MB free. Kept are the checkpoints of the "
            f"steps {kept or 'none'}. Fix: free disk space, and resume."
        ) from error
    except Interrupted as stop:
        where = (
            f"stopped after step {state.step} and saved in {folder}; resume (--resume) to continue"
        )
        if not state.step:
            where = "stopped before the first step; start it again"
        end_run(stop.number, where, state.accelerator)
    except RuntimeError as error:
        told = explained(error, state.accelerator)
        if not isinstance(told, ProcessFailed):
            raise
        raise told from error
