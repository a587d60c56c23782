"""All measures of quality of a set of samples, and their table and JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...storage.images import save_grid
from ...storage.replacing import replacing
from .estimate import Estimate
from .frechet import GaussianStatistics, bootstrap_frechet
from .kernel import kernel_distance
from .neighbours import Nearest, authenticity, density_coverage, precision_recall

MEASURES = {
    "frechet": "Fréchet",
    "kernel": "kernel x 1000",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "authenticity": "authentic",
    "agreement": "agreement",
}
"""Names of the measures and their headings."""


@dataclass(frozen=True)
class Quality:
    """Measures of one set of samples; None was not measured.

    Args:
        name: Name of the samples.
        count: Number of samples.
        frechet: Fréchet distance to the reference; smaller is better.
        kernel: Kernel distance to the reference; smaller is better.
        precision: Share of samples among the reference.
        recall: Share of the reference among the samples.
        density: Density of samples around the reference.
        coverage: Share of the reference with a sample nearby.
        authenticity: Share of samples that are no near-copies of training images.
        agreement: Share of samples in which a classifier sees the class asked for.
    """

    name: str
    count: int
    frechet: Estimate | None = None
    kernel: Estimate | None = None
    precision: Estimate | None = None
    recall: Estimate | None = None
    density: Estimate | None = None
    coverage: Estimate | None = None
    authenticity: Estimate | None = None
    agreement: Estimate | None = None


def measure_quality(
    name: str,
    samples: Tensor,
    reference: Tensor | GaussianStatistics,
    *,
    training: Nearest | None = None,
    agreement: Tensor | None = None,
) -> Quality:
    """Measures a set of samples in the space of features.

    Args:
        name: Name of the samples.
        samples: Features of the samples, [samples, features].
        reference: Features of the reference, [images, features]; with statistics alone, only the
            Fréchet distance is measured.
        training: Nearest training images of the samples.
        agreement: Whether a classifier sees the class asked for, bool [samples].
    """
    measures: dict[str, Any] = {"frechet": bootstrap_frechet(samples, reference)}
    if not isinstance(reference, GaussianStatistics):
        measures["kernel"] = kernel_distance(samples, reference)
        measures |= precision_recall(samples, reference)._asdict()
        measures |= density_coverage(samples, reference)._asdict()
    if training is not None:
        measures["authenticity"] = authenticity(training)
    if agreement is not None:
        measures["agreement"] = Estimate.mean(agreement)
    return Quality(name, len(samples), **measures)


def quality_table(rows: Sequence[Quality]) -> str:
    """Returns a table of the measures with 95 % intervals, one line for each set of samples."""
    shown = [key for key in MEASURES if any(vars(row)[key] is not None for row in rows)]
    lines = [["", "samples", *(MEASURES[key] for key in shown)]]
    for row in rows:
        cells = [_cell(vars(row)[key], 1000 if key == "kernel" else 1) for key in shown]
        lines.append([row.name, str(row.count), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
        )
        for first, *rest in lines
    )


def write_quality(rows: Sequence[Quality], facts: Mapping[str, Any], path: Path) -> None:
    """Writes the measures, and facts about their measurement, as JSON."""
    found = [{**dataclasses.asdict(row)} for row in rows]
    with replacing(path, "t") as file:
        file.write(json.dumps({**facts, "results": _finite(found)}, indent=1) + "\n")


def save_nearest(
    samples: Tensor,
    training: Callable[[Tensor], Tensor],
    neighbours: Nearest,
    path: Path,
    count: int = 16,
) -> None:
    """Draws the samples that are closest to training images, each beside its nearest one.

    Args:
        samples: uint8 images [samples, channels, height, width].
        training: Function that returns the training images of indices.
        neighbours: Nearest training images of the samples.
        path: Path of the PNG file, with four pairs in a row.
        count: Number of pairs.
    """
    closest = (neighbours.distance / neighbours.own_distance).argsort()[:count]
    pairs = torch.stack([samples[closest], training(neighbours.index[closest])], dim=1)
    save_grid(pairs.flatten(0, 1).float() / 255, path, columns=min(8, 2 * len(closest)))


def _cell(estimate: Estimate | None, scale: float) -> str:
    if estimate is None:
        return ""
    value, margin = scale * estimate.value, scale * 1.96 * estimate.error
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    digits = min(digits, 4)
    return f"{value:.{digits}f} ± {margin:.{digits}f}"


def _finite(value: Any) -> Any:
    """Returns plain data without NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
