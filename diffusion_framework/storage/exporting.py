"""Exports the model of a run: its weights without the optimizer, and its description."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoint import Checkpoint
from .description import Description
from .post_hoc_ema import open_weights
from .reading import read_file
from .replacing import replacing
from .run_paths import results_folder
from .writing import write_export

TUNED = "tuned.json"
MOST_TUNED = 1_000_000  # bytes


def export_run(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    weights: str | float = "ema",
    half: bool = False,
) -> Description:
    """Writes one kind of weights of a checkpoint, and the description of its model, to a folder.

    What `diffusion tune` found for the model comes along.

    Nothing is built, so that the classes of the model need not be known here.

    Args:
        source: Results folder, checkpoint or export.
        folder: Folder that does not exist yet.
        weights: 'ema' for averaged weights, 'model' for the weights of the last step, or the width
            of an average to make (see `post_hoc_ema`).
        half: Whether to round floating-point tensors to float16.

    Returns:
        The description of the export.

    Raises:
        ValueError: If the source is damaged, the folder exists, the weights cannot be made, or the
            model needs files of this machine.
        OSError: If the folder cannot be written; it then does not exist.
    """
    checkpoint = Checkpoint.find(source)
    model = checkpoint.config.get("diffusion")
    for place, path in _absolute_paths(model, "diffusion"):
        raise ValueError(
            f"{checkpoint.path}: expected a model that needs no file of this machine, got "
            f"{path:.200} as {place:.200}. Fix: give that part by its weights instead of a path."
        )
    tuned = (results_folder(checkpoint) or checkpoint.path) / TUNED
    found = read_file(tuned, MOST_TUNED) if tuned.exists() else None
    kind, tensors = open_weights(checkpoint, weights)
    if half:
        tensors = {name: _halved(name, value) for name, value in tensors.items()}
    about, config = Description.of(checkpoint), {"diffusion": model}
    told: dict[str, Any] = {"steps": about.steps, "parameters": about.parameters}
    told |= {"figures": about.figures, "versions": about.versions}
    write_export(folder, {kind: tensors}, config, checkpoint.class_names, about=told)
    if found is not None:
        with replacing(Path(folder) / TUNED) as file:
            file.write(found)
    return Description.of(Checkpoint.find(folder))


def _halved(name: str, value: Tensor) -> Tensor:
    """Returns a tensor in half precision, or as it is if it does not hold floats.

    Raises:
        ValueError: If a value is too large.
    """
    if not value.is_floating_point():
        return value
    half = value.to(torch.float16)
    if bool((torch.isinf(half) & torch.isfinite(value)).any()):
        most = torch.finfo(torch.float16).max
        raise ValueError(
            f"Expected weights of at most {most:g} for half precision, got {value.abs().max():.3g} "
            f"in {name}. Fix: export without half (--half false)."
        )
    return half


def _absolute_paths(tree: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yields the place and text of each absolute path, or path of a run, in plain data."""
    if isinstance(tree, str) and (os.path.isabs(tree) or tree.startswith("{run}/")):
        yield place, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _absolute_paths(value, f"{place}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _absolute_paths(value, f"{place}[{index}]")
