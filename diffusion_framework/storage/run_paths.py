"""Paths in the config of a run: relative to its results folder, so that both can move together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .checkpoint import CHECKPOINTS, Checkpoint

_RUN = "{run}/"  # the results folder


def results_folder(checkpoint: Checkpoint) -> Path | None:
    """Returns the results folder of the run that a checkpoint lies in, or None."""
    parent = checkpoint.path.absolute().parent
    return parent.parent if parent.name == CHECKPOINTS else None


def relative_to_run(tree: Any, results_folder: Path) -> Any:
    """Returns plain data with each absolute path as '{run}/...', relative to the results folder."""

    def relative(text: str) -> str:
        if not os.path.isabs(text):
            return text
        try:
            path = os.path.relpath(text, results_folder.absolute())
        except ValueError:  # on another drive of Windows
            return text
        return _RUN + path.replace(os.sep, "/")

    return _changed(tree, relative)


def absolute_from_run(tree: Any, results_folder: Path) -> Any:
    """Inverts `relative_to_run`, for a results folder that may have moved."""

    def absolute(text: str) -> str:
        if not text.startswith(_RUN):
            return text
        return os.path.normpath(results_folder.absolute() / text.removeprefix(_RUN))

    return _changed(tree, absolute)


def _changed(tree: Any, change: Callable[[str], str]) -> Any:
    """Returns nested lists and mappings with another text in place of each text."""
    if isinstance(tree, str):
        return change(tree)
    if isinstance(tree, list):
        return [_changed(item, change) for item in tree]
    if isinstance(tree, Mapping):
        return {key: _changed(item, change) for key, item in tree.items()}
    return tree
