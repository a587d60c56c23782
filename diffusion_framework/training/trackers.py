"""Trackers of accelerate that get the numbers and previews of a run, such as TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from ..parts import nearest
from .checks import expect

_OF_IMAGES = ("clearml", "swanlab", "wandb")  # trackers that take lists of images


def check_trackers(names: Collection[str]) -> None:
    """Raises ValueError unless accelerate has all trackers, and their packages are installed."""
    for name in names:
        known = sorted(LOGGER_TYPE_TO_CLASS)
        close = nearest(str(name), known)
        fix = f"write {close!r}" if close else "choose among these"
        expect(name in known, f"logging.trackers among {', '.join(known)}", name, fix)
        fix = f"install it with pip install {name.replace('_', '-')}"
        expect(_is_installed(name), f"the package of the tracker {name}", "none", fix)


def chosen_trackers(names: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of the trackers; of None, TensorBoard if it is installed."""
    if names is not None:
        return tuple(names)
    return ("tensorboard",) if _is_installed("tensorboard") else ()


def begin_tracking(
    accelerator: Accelerator,
    names: Collection[str],
    run: Path,
    project: str,
    config: Mapping[str, Any],
    step: int,
) -> None:
    """Starts the trackers of a run, on the main process.

    Args:
        accelerator: Accelerator of the run.
        names: Names of the trackers.
        run: Results folder, whose name is that of the run.
        project: Project of the run, for trackers that have projects.
        config: All options that build the run, for trackers other than TensorBoard.
        step: Number of optimizer steps taken; TensorBoard drops later ones.
    """
    options: dict[str, Any] = {"tensorboard": {"purge_step": step + 1}}
    options["wandb"] = {"name": run.absolute().name, "dir": str(run)}
    trackers = []
    for name in names:
        accelerator.log_with, accelerator.trackers = [name], []
        if name == "tensorboard":  # the name of its folder; it would write a config as another run
            accelerator.init_trackers(name, None, options)
        else:
            accelerator.init_trackers(project, dict(_flat(config)), options)
        trackers += accelerator.trackers
    accelerator.trackers = trackers


def track_image(accelerator: Accelerator, name: str, pixels: np.ndarray, step: int) -> None:
    """Hands an image [height, width, 3] of bytes to the trackers that take images."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.tracker.add_image(name, pixels, step, dataformats="HWC")
        elif tracker.name in _OF_IMAGES:
            tracker.log_images({name: [pixels]}, step)


def hint_without_trackers(names: Sequence[str] | None) -> None:
    """Prints how to see curves if no tracker was chosen and TensorBoard is not installed."""
    if names is None and not _is_installed("tensorboard"):
        hint = "the curves are in log.csv alone; pip install tensorboard shows them in a browser"
        print(hint, file=sys.stderr, flush=True)


def _is_installed(name: str) -> bool:
    mine = name not in _BUILT_IN  # registered by the user
    return mine or name in map(str, get_available_trackers())


_BUILT_IN = frozenset(LOGGER_TYPE_TO_CLASS)


def _flat(tree: Any, name: str = "") -> list[tuple[str, Any]]:
    """Returns the numbers and words of nested mappings by their dotted names."""
    if isinstance(tree, Mapping):
        items = [(f"{name}.{key}".lstrip("."), value) for key, value in tree.items()]
        return [pair for key, value in items for pair in _flat(value, key)]
    if tree is None or isinstance(tree, bool | int | float | str):
        return [(name, tree)]
    return [(name, str(tree))]
