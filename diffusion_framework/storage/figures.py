"""The figures of a run, read from its tables; damaged or foreign tables give none."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

from .reading import check_regular

_TAIL = 100_000  # bytes at the end of log.csv
_MOST = 20_000_000  # bytes of validation.csv
_LEVELS = "loss_log_snr_"  # losses by noise level, which are no figures of merit


def last_loss(results_folder: Path, up_to: int | None = None) -> float | None:
    """Returns the loss in the last row of log.csv up to a step, or None."""
    path, found = results_folder / "log.csv", None
    rows = [*_rows(_text(path, first=200))][:1]
    columns = rows[0] if rows else []
    if columns[:2] != ["step", "loss"]:
        return None
    for row in _rows(_text(path, last=_TAIL)):
        step, loss = _number(row, 0), _number(row, 1)
        if len(row) == len(columns) and step is not None and (up_to is None or step <= up_to):
            found = found if loss is None else loss
    return found


def best_metrics(results_folder: Path, up_to: int | None = None) -> dict[str, float]:
    """Returns the smallest value of each metric in validation.csv up to a step."""
    rows = _rows(_text(results_folder / "validation.csv", last=_MOST))
    columns = next(rows, [])
    best: dict[str, float] = {}
    if columns[:1] != ["step"]:
        return best
    for row in rows:
        step = _number(row, 0)
        if step is None or (up_to is not None and step > up_to):
            continue
        for index, name in enumerate(columns[1:], 1):
            value = _number(row, index)
            if value is not None and not name.startswith(_LEVELS):
                best[name] = min(value, best.get(name, math.inf))
    return best


def _text(path: Path, first: int | None = None, last: int = 0) -> str:
    """Returns a part of a regular file as text; nothing if it cannot be read."""
    try:
        size = check_regular(path)
        with open(path, "rb") as file:
            if first is None:
                file.seek(max(0, size - last), os.SEEK_SET)
            return file.read(first if first is not None else last).decode(errors="replace")
    except OSError:
        return ""


def _rows(text: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text))
    except csv.Error:  # such as a field of many megabytes
        return


def _number(row: list[str], index: int) -> float | None:
    """Returns a finite number of a row, or None."""
    try:
        value = float(row[index])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) else None
