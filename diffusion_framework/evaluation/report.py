"""Reports of the variational bound as a table, a plot and a mean."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..parts.extras import check_installed
from ..storage.replacing import replacing
from .likelihood import BoundTerms


def mean_and_error(bits: Tensor) -> tuple[float, float]:
    """Returns the mean over images [batch] and its standard error, 0 for a single image."""
    error = bits.std().item() / math.sqrt(len(bits)) if len(bits) > 1 else 0.0
    return bits.mean().item(), error


def write_bound(bound: BoundTerms, path: Path) -> None:
    """Writes the bound's terms, averaged over images, as CSV.

    The rows are the prior, each step from noisy to clean, and the total. t and log_snr belong to
    the level at which the step starts.
    """
    names = ["kl"] * (len(bound.grid) - 1) + ["reconstruction"]
    rows: list[tuple[str, object, object, Tensor]] = [("prior", "", "", bound.prior)]
    for name, (now, _), bits in zip(names, bound.grid, bound.steps.unbind(1), strict=True):
        rows.append((name, f"{now.t:.9g}", f"{now.log_snr:.9g}", bits))
    rows.append(("total", "", "", bound.total))
    with replacing(path, "t", newline="") as file:
        table = csv.writer(file)
        table.writerow(["term", "t", "log_snr", "bits_per_dim", "standard_error"])
        for term, t, log_snr, bits in rows:
            table.writerow([term, t, log_snr, *(f"{value:.9g}" for value in mean_and_error(bits))])


def check_plot() -> None:
    """Checks that matplotlib is installed, before a long evaluation rather than after it.

    Raises:
        ValueError: If it is not.
    """
    check_installed("matplotlib", "the plot")


def plot_bounds(bounds: Mapping[str, BoundTerms], path: Path) -> None:
    """Plots the terms of each model over time, and their sums from the clean end, as PNG."""
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
