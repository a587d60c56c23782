"""The table of validation metrics, and its picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from ..losses import LEVEL_NAMES
from ..storage.replacing import replacing

_SHOWN = 5  # validations in the picture of the loss by noise level


def add_row(path: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Adds a row to a CSV file, which is created or gets new columns where needed."""
    columns, rows = _read(path)
    wanted = [*(columns or ["step"]), *(name for name in metrics if name not in columns)]
    row = {"step": str(step), **{name: f"{value:.6g}" for name, value in metrics.items()}}
    if wanted != columns:
        with replacing(path, "t", newline="") as file:
            table = csv.DictWriter(file, wanted, restval="")
            table.writeheader()
            table.writerows(rows)
    with open(path, "a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, wanted, restval="").writerow(row)


def draw_curves(table: Path, path: Path) -> bool:
    """Draws the metrics over the steps, and the losses by noise level, as PNG.

    Args:
        table: CSV file of the metrics.
        path: Path of the picture.

    Returns:
        Whether it was drawn; False without matplotlib.
    """
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    columns, rows = _read(table)
    values = {name: [float(row[name] or math.nan) for row in rows] for name in columns}
    steps, levels = values.pop("step"), [name for name in LEVEL_NAMES if name in values]
    others = [name for name in values if name not in levels]
    panels = len(others) + bool(levels)
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for name, panel in zip(others, axes, strict=False):
        panel.plot(steps, values[name], ".-")
        panel.set(xlabel="step", title=name.replace("_", " "))
    if levels:
        _draw_levels(axes[-1], steps, [values[name] for name in levels])
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=100)
    return True


def _draw_levels(axes: object, steps: Sequence[float], losses: Sequence[Sequence[float]]) -> None:
    """Draws losses [level][validation], for a few validations from the first to the last."""
    import matplotlib
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    last = len(steps) - 1
    shown = sorted({round(last * i / (_SHOWN - 1)) for i in range(_SHOWN)})
    ends = [name.removeprefix("loss_log_snr_").split("_") for name in LEVEL_NAMES]
    for place, index in enumerate(shown):
        colour = matplotlib.colormaps["viridis"](place / max(len(shown) - 1, 1) * 0.9)
        heights = [level[index] for level in losses]
        axes.plot(range(len(heights)), heights, ".-", color=colour, label=f"step {steps[index]:g}")
    axes.set_xticks(range(len(ends)), ["\n".join(end) for end in ends], fontsize=7)
    labels = {"xlabel": "log-SNR, from noisy to clean", "title": "loss by noise level"}
    axes.set(**labels, yscale="log")
    axes.legend(fontsize=8)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the columns and rows of a CSV file; none if it does not exist."""
    if not path.exists():
        return [], []
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        columns = list(table.fieldnames or ())
        return (columns, list(table)) if "step" in columns else ([], [])
