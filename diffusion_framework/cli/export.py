"""The command `export`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..storage.exporting import export_run
from .common import run
from .info import in_bytes


def export(argv: Sequence[str]) -> None:
    """Runs the command; argv is the command line, without the program."""
    run(export_model, argv, "export")


def export_model(
    checkpoint: str,
    folder: str,
    *,
    weights: Literal["ema", "model"] = "ema",
) -> None:
    """Exports the model of a run to a folder that can be shared.

      diffusion export results/flowers flowers-model

    The folder holds the weights (safetensors), the description of the model and their checksums,
    without the optimizer and without paths of this machine. In Python,
    `GaussianDiffusion.from_pretrained(folder)` opens it; the commands sample and evaluate take it.

    Args:
        checkpoint: Results folder of a run, whose newest checkpoint is taken, or one checkpoint.
        folder: Folder to write, which must not exist yet.
        weights: Weights to export: ema (their moving average) or model (the last ones).
    """
    made = export_run(checkpoint, folder, weights)
    what = f"{made.model} of step {made.steps}, {in_bytes(made.size)}"
    opened = f"{made.model}.from_pretrained({folder!r})"
    print(f"done: {folder} holds a {what}; open it with {opened}")
