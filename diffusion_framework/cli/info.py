"""The command that tells what a run holds."""

from __future__ import annotations

import dataclasses
import json as json_format
import textwrap
from collections.abc import Iterator

from ..parts.counting import counted
from ..samplers.tuned_file import TunedFile
from ..storage.checkpoint import Checkpoint
from ..storage.description import Description
from ..storage.printing import in_short
from ..storage.run_paths import results_folder
from .help import WIDTH

_COLUMN = 12


def info(run: str, *, json: bool = False) -> None:
    """Prints what a run, a checkpoint or an export holds.

    Nothing is built, and no code of the checkpoint runs.

    Examples:
      diffusion info results/flowers
      diffusion info results/flowers/checkpoints/step-00010000 --json

    Args:
        run: Results folder of a run, whose newest checkpoint is described, one checkpoint, or an
            export.
        json: Whether to print JSON.
    """
    checkpoint = Checkpoint.find(run)
    told = Description.of(checkpoint)
    tuned = TunedFile.read(results_folder(checkpoint) or checkpoint.path)
    if json:
        counts = [] if tuned is None else tuned.calls
        print(json_format.dumps(dataclasses.asdict(told) | {"tuned": counts}, indent=2))
        return
    for name, value in [*rows(told), *(() if tuned is None else tuned_rows(tuned))]:
        lines = textwrap.wrap(value, WIDTH - _COLUMN) or [""]
        print(f"{name:<{_COLUMN}}" + f"\n{'':<{_COLUMN}}".join(lines))


def rows(told: Description) -> Iterator[tuple[str, str]]:
    """Yields the names and values of what is known, a line each."""
    yield told.kind, told.path
    yield "model", told.model
    yield "network", told.network
    if told.parameters is not None:
        yield "parameters", f"{in_short(told.parameters)} ({told.parameters:,})"
    for name, part in told.parts.items():
        yield name.replace("noise_", "").replace("_", " "), part
    of = f" of {told.num_steps}" if told.num_steps is not None else ""
    yield "steps", f"{told.steps}{of}"
    if told.data is not None:
        count = f", {counted(told.samples, 'sample')}" if told.samples is not None else ""
        yield "data", f"{told.data}{count}"
    if told.classes:
        more = f", ... ({len(told.classes)} classes)" if len(told.classes) > 8 else ""
        yield "classes", ", ".join(told.classes[:8]) + more
    if told.batch is not None:
        yield "batch", f"{counted(told.batch, 'sample')} a step"
    if told.figures:
        yield "figures", in_figures(told.figures)
    yield "size", f"{in_bytes(told.size)} ({', '.join(told.weights) or 'no weights'})"
    if told.averages:
        yield "averages", in_widths(**told.averages)
    yield "written", told.written
    if told.versions:
        yield "versions", ", ".join(f"{name} {value}" for name, value in told.versions.items())


def tuned_rows(tuned: TunedFile) -> Iterator[tuple[str, str]]:
    """Yields what `diffusion tune` found, a line."""
    counts = ", ".join(str(count) for count in tuned.calls) or "no"
    yield "tuned", f"for {counts} network calls, at step {tuned.step} ({tuned.weights:.20})"


def in_widths(profiles: list[float], snapshots: int, widths: list[float]) -> str:
    """Returns the widths of averages that a run can make, and from what, on one line."""
    made = f"--weights {' to '.join(map(str, widths))}" if widths else "none before the first one"
    tracked = ", ".join(map(str, profiles))
    return f"{made}, from the profiles {tracked} and {counted(snapshots, 'snapshot')}"


def in_figures(figures: dict[str, float]) -> str:
    """Returns figures by name on one line; those of the validation are the best ones."""
    shown = [
        f"last loss {value:.4g}" if name == "loss" else f"best {name} {value:.4g}"
        for name, value in figures.items()
    ]
    return ", ".join(shown)


def in_bytes(size: float) -> str:
    """Returns a size with three digits and a unit, such as 143 MB."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size:.0f} bytes"
