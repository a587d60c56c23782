"""Reads tables of JSON lines or comma-separated values, with the place of each row for errors."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ...storage.reading import read_file

NAME_COLUMN = "file_name"
Row = Mapping[str, Any]


def read_rows(path: Path, name: str) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a table with their places; .jsonl holds JSON lines, .csv values.

    Args:
        path: Path of the table.
        name: Name of the table, for errors.

    Raises:
        ValueError: a file that is not UTF-8, or a line that is not a row.
    """
    content = read_text(path)
    return _json_rows(content, name) if path.suffix == ".jsonl" else _csv_rows(content, name)


def read_text(path: Path) -> str:
    """Returns the content of a file in UTF-8.

    Raises:
        ValueError: other bytes.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, got byte {error.object[error.start]:#04x} at "
            f"{error.start}. Fix: save it as UTF-8."
        ) from error


def _json_rows(content: str, file: str) -> Iterator[tuple[str, Row]]:
    """Yields the rows of JSON lines with their places."""
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{file}, line {number}: expected a row in JSON, got {line.strip()[:40]!r} "
                f"({str(error)[:80]}). Fix: write one object, such as "
                f'{{"{NAME_COLUMN}": "a.png", "text": "a cat"}}.'
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{file}, line {number}: expected a JSON object, got {line.strip()[:40]!r}. Fix: "
                f'write {{"{NAME_COLUMN}": "a.png", "text": "a cat"}}.'
            )
        yield f"{file}, line {number}", row


def _csv_rows(content: str, file: str) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a table of comma-separated values with their places."""
    reader = csv.reader(StringIO(content, newline=""), strict=True)
    names: list[str] | None = None
    try:
        for cells in reader:
            place = f"{file}, line {reader.line_num}"
            if not cells:
                continue
            if names is None:
                names = cells
                if len(set(names)) < len(names):
                    raise csv.Error("two columns of one name")
            elif len(cells) != len(names):
                raise csv.Error(f"{len(cells)} values for {len(names)} columns")
            else:
                yield place, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{file}, line {reader.line_num}: expected a row of comma-separated values, got "
            f"{error}. Fix: put values with commas in double quotes."
        ) from error
