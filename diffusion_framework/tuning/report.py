"""The result of tuning as a table and as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..parts.extras import check_installed
from ..process.schedules import NoiseSchedule
from ..samplers import Sampler
from ..samplers.grids import Grid
from ..storage.replacing import replacing
from .search import Tuning

_COLUMNS = ("calls", "sampler", "last sigma/alpha", "error before", "tuned", "ratio")


def table(tuning: Tuning, schedule: NoiseSchedule) -> str:
    """Returns a row for each number of calls; errors are RMS distances on held-out paths."""
    rows = [_COLUMNS]
    for one in tuning.found:
        last = one.tuned.grid(schedule)[-1][0]
        kept = "" if one.error < one.default_error else " (not used)"
        numbers = (f"{last.sigma / last.alpha:.3g}", f"{one.default_error:.3g}")
        ratio = f"{one.error / max(one.default_error, 1e-30):.2f}{kept}"
        sampler = in_short(one.tuned.sampler)
        rows.append((str(one.tuned.steps), sampler, *numbers, f"{one.error:.3g}", ratio))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.rjust(w) if i != 1 else cell.ljust(w) for i, (cell, w) in pairs).rstrip()
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    note = f"the teacher's own error is about {tuning.teacher_error:.2g}"
    return "\n".join([*lines, f"errors are RMS on held-out paths; {note}"])


def in_short(sampler: Sampler) -> str:
    """Returns a sampler with its options that are not defaults, on one line."""
    options: dict[str, Any] = {**sampler.to_config()["init_args"]}
    plain: dict[str, Any] = type(sampler)().to_config()["init_args"]
    shown = [f"{name}={value!r}" for name, value in options.items() if value != plain[name]]
    return f"{type(sampler).__name__}({', '.join(shown)})"


def plot_tuning(tuning: Tuning, schedule: NoiseSchedule, path: Path) -> None:
    """Plots the levels for each number of calls beside those without tuning, and the errors."""
    check_installed("matplotlib", "the plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    levels, errors = figure.subplots(1, 2, width_ratios=(3, 2))
    counts = [one.tuned.steps for one in tuning.found]
    for row, one in enumerate(tuning.found):
        default, tuned = tuning.defaults[one.tuned.steps], one.tuned.grid(schedule)
        for grid, up, mark, colour, name in (
            (default, 0.12, "o", "tab:grey", "without tuning"),
            (tuned, -0.12, "o", "tab:blue", "tuned"),
        ):
            label = name if row == 0 else None
            levels.plot(_shown(grid), [row + up] * (len(grid) - 1), mark, color=colour, label=label)
    levels.set_yticks(range(len(counts)), [f"{count} calls" for count in counts])
    levels.set_ylim(-0.6, len(counts) - 0.1)
    levels.set(xlabel="log-SNR where a step starts (the first starts at the schedule's)")
    levels.legend(fontsize=8, loc="upper left", ncols=2)
    for name, colour, values in (
        ("without tuning", "tab:grey", [one.default_error for one in tuning.found]),
        ("tuned", "tab:blue", [one.error for one in tuning.found]),
    ):
        errors.plot(counts, values, "o-", color=colour, label=name)
    errors.axhline(tuning.teacher_error, color="black", linewidth=0.8, linestyle=":")
    errors.set(xlabel="network calls", ylabel="RMS distance to the teacher", yscale="log")
    errors.set_xticks(counts)
    errors.minorticks_off()
    errors.legend(fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _shown(grid: Grid) -> list[float]:
    """Returns the log-SNRs where steps after the first start."""
    return [now.log_snr for now, _ in grid[1:] if math.isfinite(now.log_snr)]
