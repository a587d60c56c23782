"""The command that exports a model."""

from __future__ import annotations

from typing import Literal

from ..storage.exporting import export_run
from .info import in_bytes


def export(
    run: str,
    folder: str,
    *,
    weights: Literal["ema", "model"] | float = "ema",
    half: bool = False,
) -> None:
    """Exports the model of a run without its optimizer, to share it.

    The folder holds the weights (safetensors), the description of the model and their checksums,
    without paths of this machine. `from_pretrained(FOLDER)` opens it in Python, and the commands
    sample and evaluate take it.

    Examples:
      diffusion export results/flowers flowers-model
      diffusion export results/flowers/checkpoints/step-00010000 flowers-10000

    Args:
        run: Results folder of a run, whose newest checkpoint is taken, or one checkpoint.
        folder: Folder to write, which must not exist yet.
        weights: Weights to export: ema (their moving average), model (the last ones), or the width
            of an average, such as 0.08 (see trainer.ema.profiles).
        half: Whether to round the weights to half precision, in half the size. They are opened as
            float32.
    """
    made = export_run(run, folder, weights, half)
    what = f"{made.model} of step {made.steps}, {in_bytes(made.size)}"
    opened = f"{made.model}.from_pretrained({folder!r})"
    print(f"done: {folder} holds a {what}; open it with {opened}")
