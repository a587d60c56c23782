"""The bound as a table, as a picture, and in a few numbers."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from .likelihood import BoundTerms


def mean_and_error(bits: Tensor) -> tuple[float, float]:
    """Mean over images [batch] and its standard error, 0 for a single image."""
    error = bits.std().item() / math.sqrt(len(bits)) if len(bits) > 1 else 0.0
    return bits.mean().item(), error


def write_bound(bound: BoundTerms, path: Path) -> None:
    """Write the terms' means over images as CSV: prior, one row a step from noisy to clean, and
    their total.

    t and log_snr are those of the level that the step leaves.
    """
    names = ["kl"] * (len(bound.grid) - 1) + ["reconstruction"]
    rows: list[tuple[str, object, object, Tensor]] = [("prior", "", "", bound.prior)]
    for name, (now, _), bits in zip(names, bound.grid, bound.steps.unbind(1), strict=True):
        rows.append((name, f"{now.t:.9g}", f"{now.log_snr:.9g}", bits))
    rows.append(("total", "", "", bound.total))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["term", "t", "log_snr", "bits_per_dim", "standard_error"])
        for term, t, log_snr, bits in rows:
            table.writerow([term, t, log_snr, *(f"{value:.9g}" for value in mean_and_error(bits))])
    os.replace(aside, path)


def check_plot() -> None:
    """Raises ValueError if nothing is there to draw with: better before hours of evaluation than
    after.
    """
    if find_spec("matplotlib") is None:
        raise ValueError(
            "the plot needs matplotlib; got none: pip install 'diffusion-framework[evaluation]'"
        )


def plot_bounds(bounds: Mapping[str, BoundTerms], path: Path) -> None:
    """Draw each model's terms over time, and their sum from the clean end up, as PNG."""
    check_plot()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    terms, sums = figure.subplots(1, 2)
    for name, bound in bounds.items():
        times, bits = [now.t for now, _ in bound.grid], bound.steps.mean(0)
        terms.plot(times, bits, ".-" if len(times) < 50 else "-", label=name, linewidth=1)
        sums.plot(times, bits.flip(0).cumsum(0).flip(0), label=name, linewidth=1)
    terms.set(xlabel="t", ylabel="bits per dimension of the step", yscale="log")
    sums.set(xlabel="t", ylabel="bits per dimension of all steps up to t")
    sums.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
