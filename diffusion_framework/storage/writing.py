"""Writes and deletes checkpoints. `checkpoint.py` describes their format and reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoint import (
    CHECKPOINTS,
    PREFIX,
    SNAPSHOTS,
    Checkpoint,
    list_checkpoints,
    step_of,
)
from .files import sha256, sync, write_sealed
from .manifest import MANIFEST, DamagedCheckpoint


def write_checkpoint(
    results_folder: str | os.PathLike[str],
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    keep: int,
    spare: Collection[int] = (),
) -> Path:
    """Writes a checkpoint and deletes older ones.

    Checkpoints of later steps are neither deleted nor counted. They exist only where a run resumed
    before them because they are damaged.

    Args:
        results_folder: Results folder of the run.
        step: Number of optimizer steps done.
        tensors: Tensors by the name of their file, without suffix, and by their own names.
        config: All options that the run was built from, as plain data.
        state: Other data that resuming needs, as plain data.
        keep: Number of newest checkpoints to keep, this one included.
        spare: Steps whose checkpoints are never deleted.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: If the checkpoint cannot be written. Earlier checkpoints are then unchanged, and
            nothing of this one remains.
        ValueError: If a checkpoint of this step exists that cannot be read, or has a newer format.
    """
    final = _write(Path(results_folder) / CHECKPOINTS, step, tensors, config, state)
    delete_old(final, keep, spare)
    return final


def write_snapshot(
    results_folder: str | os.PathLike[str], step: int, tensors: Mapping[str, Mapping[str, Tensor]]
) -> str:
    """Writes a snapshot of averaged weights; one of the same step is replaced.

    Args:
        results_folder: Results folder of the run.
        step: Number of optimizer steps done.
        tensors: Tensors by the name of their file, without suffix, and by their own names.

    Returns:
        The checksum of its manifest.

    Raises:
        OSError: If it cannot be written; nothing of it then remains.
        ValueError: If a folder of this name exists that cannot be read, or has a newer format.
    """
    return sha256(_write(Path(results_folder) / SNAPSHOTS, step, tensors, {}, {}) / MANIFEST)


def _write(
    parent: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    state: Mapping[str, Any],
) -> Path:
    """Writes the sealed folder of a step under a temporary name, and renames it."""
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(".tmp-*"):
        _delete(leftover)
    temporary, final = parent / f".tmp-{step:08d}", parent / f"{PREFIX}{step:08d}"
    try:
        write_sealed(temporary, step, tensors, config, state)
        if final.exists():  # a run that resumed from an older checkpoint reaches this step again
            if not _may_delete(final):
                raise ValueError(
                    f"{final}: expected a checkpoint of this version that can be read, got "
                    "another. Fix: move it, or choose another results_folder."
                )
            _remove(final)
        temporary.rename(final)
        sync(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def delete_old(newest: Path, keep: int, spare: Collection[int] = ()) -> None:
    """Deletes older checkpoints, and what a killed run has left of unfinished or deleted ones.

    Args:
        newest: Checkpoint whose older ones are deleted.
        keep: Number of newest checkpoints to keep, `newest` included.
        spare: Steps whose checkpoints are never deleted.
    """
    for leftover in newest.parent.glob(".tmp-*"):
        shutil.rmtree(leftover)
    checkpoints = list_checkpoints(newest.parent.parent)
    for old in checkpoints[: checkpoints.index(newest) + 1][:-keep]:
        if step_of(old) not in spare and _may_delete(old):
            _remove(old)


def _may_delete(checkpoint: Path) -> bool:
    """Returns whether a checkpoint is whole or damaged, not unreadable or of a newer format."""
    try:
        Checkpoint.open(checkpoint)
    except DamagedCheckpoint:
        return True
    except (ValueError, OSError):
        return False
    return True


def write_export(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    class_names: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint of a model alone, from which no run can resume.

    Args:
        folder: Folder that does not exist yet.
        tensors: Tensors by the name of their file, without suffix, and by their own names.
        config: Options that the model is built from, as plain data.
        class_names: Names of the classes 0, 1, ..., if known.
        about: Origin of the weights, such as the number of steps, as plain data.

    Raises:
        ValueError: If the folder exists.
        OSError: If it cannot be written; it then does not exist.
    """
    final = Path(os.path.abspath(folder))
    if final.exists() or final.is_symlink():
        raise ValueError(
            f"{final}: expected a new folder, got an existing one. Fix: choose another."
        )
    new = [parent for parent in final.parents if not parent.exists()]
    state = {"class_names": list(class_names)} | ({} if about is None else {"about": dict(about)})
    temporary = final.with_name(f".tmp-{final.name}-{os.getpid()}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(temporary, 0, tensors, config, state)
        temporary.rename(final)
        sync(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in new:  # the innermost first
            with suppress(OSError):
                parent.rmdir()
        raise


def set_aside(results_folder: str | os.PathLike[str], after: int) -> Path | None:
    """Moves the checkpoints and snapshots of later steps to a new folder beside the others.

    Args:
        results_folder: Results folder of a run.
        after: Step of the last checkpoint that stays.

    Returns:
        The new folder, or None if there are no later checkpoints.
    """
    later = [path for path in list_checkpoints(results_folder) if step_of(path) > after]
    if not later:
        return None
    parent, number = later[0].parent, 1
    while (aside := parent / f"after-{PREFIX}{after:08d}-{number}").exists():
        number += 1
    aside.mkdir()
    for path in reversed(later):  # killed in between, the newest remaining one is still in order
        path.rename(aside / path.name)
    for path in list_checkpoints(results_folder, SNAPSHOTS):
        if step_of(path) > after:
            (aside / SNAPSHOTS).mkdir(exist_ok=True)
            path.rename(aside / SNAPSHOTS / path.name)
    sync(parent)
    return aside


def _remove(checkpoint: Path) -> None:
    """Deletes a checkpoint atomically.

    The folder is first renamed. If the process is killed in between, the next write deletes the
    rest.
    """
    temporary = checkpoint.with_name(f".tmp-old-{checkpoint.name}")
    checkpoint.rename(temporary)
    _delete(temporary)


def _delete(path: Path) -> None:
    """Deletes a folder, a file or a link, but not what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def check_space(results_folder: str | os.PathLike[str], size: int, count: int) -> None:
    """Checks that the disk has space for `count` new checkpoints of `size` bytes; writes nothing.

    Raises:
        ValueError: If the free space is too small.
    """
    folder = Path(results_folder).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size * count:
        raise ValueError(
            f"{folder}: expected {size * count / 1e9:.3g} GB of free space for {count} checkpoints "
            f"of {size / 1e9:.3g} GB, got {free / 1e9:.3g} GB. "
            "Fix: free disk space, or lower saving.keep_newest."
        )
