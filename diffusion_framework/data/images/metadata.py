"""Tables beside images: metadata.jsonl or metadata.csv with a column file_name."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...parts import unknown_name
from .tables import NAME_COLUMN, Row, read_rows

METADATA = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True)
class Metadata:
    """Rows of tables, one for each image.

    Args:
        folder: Folder of the images.
        files: Names of the tables relative to the folder.
        paths: Paths of the images relative to the folder.
        rows: Row of each image, by the names of the columns.
    """

    folder: str
    files: Sequence[str]
    paths: Sequence[str]
    rows: Sequence[Row]

    @property
    def columns(self) -> list[str]:
        """Names of all columns but that of the file names, in the order of the tables."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def chosen(self, indices: Iterable[int]) -> Metadata:
        """Returns the rows of the images at these indices."""
        kept = list(indices)
        paths, rows = [self.paths[i] for i in kept], [self.rows[i] for i in kept]
        return Metadata(self.folder, self.files, paths, rows)

    def column(self, name: str, flag: str) -> list[Any]:
        """Returns the value of each image in a column; None where a row lacks it.

        Args:
            name: Name of the column.
            flag: Name of the option that asks for it, for errors.

        Raises:
            ValueError: no row has the column.
        """
        known = self.columns
        if name not in known:
            wanted = f"a column of {', '.join(self.files)} ({', '.join(known) or 'none'})"
            raise unknown_name(flag, wanted, name, known)
        return [row.get(name) for row in self.rows]

    def words(self, name: str, flag: str) -> list[str | int]:
        """Returns a column of words or whole numbers, without missing ones.

        Raises:
            ValueError: no row has the column, or a value is missing or of another kind.
        """
        values = self.column(name, flag)
        for path, value in zip(self.paths, values, strict=True):
            if not isinstance(value, str | int) or value == "":
                raise ValueError(
                    f"Expected a word or a whole number in column {name!r} of {self.files[0]}, got "
                    f"{value!r:.40} for {path!r}. Fix: fill it in, or choose another column."
                )
        return values

    def texts(self, names: Sequence[str], flag: str) -> list[str]:
        """Returns the text of each image: the values of these columns, joined by ', '.

        Raises:
            ValueError: no row has a column, or a value is neither text nor a number.
        """
        columns = [self.column(name, flag) for name in names]
        for name, values in zip(names, columns, strict=True):
            for path, value in zip(self.paths, values, strict=True):
                if not (value is None or isinstance(value, str | int | float)):
                    raise ValueError(
                        f"Expected text in column {name!r} of {self.files[0]}, got {value!r:.40} "
                        f"for {path!r}. Fix: write one text, or choose another column."
                    )
        cells = zip(*columns, strict=True)
        return [", ".join(str(v) for v in row if v is not None and str(v).strip()) for row in cells]

    def vectors(self, names: Sequence[str], flag: str) -> np.ndarray:
        """Returns the numbers of each image in these columns, float32 [images, numbers].

        A column holds numbers, or lists of numbers of one length.

        Raises:
            ValueError: no row has a column, or a value is missing or not finite.
        """
        columns = [self.column(name, flag) for name in names]
        parts = []
        for name, values in zip(names, columns, strict=True):
            rows = [_numbers(value) for value in values]
            length = len(rows[0]) if rows[0] is not None else 1
            for path, value, row in zip(self.paths, values, rows, strict=True):
                if row is None or len(row) != length or not np.isfinite(row).all():
                    several = f"{length} finite numbers" if length != 1 else "a finite number"
                    raise ValueError(
                        f"Expected {several} in column {name!r} of {self.files[0]}, got "
                        f"{value!r:.40} for {path!r}. Fix: correct it, or choose another column."
                    )
            parts.append(np.stack([row for row in rows if row is not None]))
        return np.concatenate(parts, axis=1)


def metadata_files(folder: str, paths: Sequence[str]) -> list[str]:
    """Returns the tables in the folders of images and above, relative to the folder."""
    places = {""}
    for path in paths:
        while path := path.rpartition("/")[0]:
            if path in places:
                break
            places.add(path)
    names = [posixpath.join(place, name) for place in sorted(places) for name in METADATA]
    return [name for name in names if os.path.isfile(os.path.join(folder, name))]


def read_metadata(folder: str, paths: Sequence[str], flag: str) -> Metadata:
    """Reads the tables of a folder of images.

    Args:
        folder: Absolute path of the folder.
        paths: Paths of the images relative to the folder, with forward slashes.
        flag: Name of the option that asks for them, for errors.

    Raises:
        ValueError: no table, a line that is not a row, a file_name outside of the folder, of no
            file, or in two rows; or an image without a row.
    """
    files, rows = metadata_files(folder, paths), dict[str, tuple[Row, str]]()
    if not files:
        raise ValueError(
            f"{flag}: expected {' or '.join(METADATA)} in {folder}, got neither. "
            f"Fix: write one, with the column {NAME_COLUMN} and one row for each image."
        )
    for file in files:
        for place, row in read_rows(Path(folder) / file, file):
            path = _path(folder, file, place, row)
            if path in rows:
                raise ValueError(
                    f"{place}: expected one row for each image, got a second one for {path!r} "
                    f"(the first is {rows[path][1]}). Fix: delete one of them."
                )
            others = {name: value for name, value in row.items() if name != NAME_COLUMN}
            rows[path] = others, place
    _check_files(folder, rows, set(paths))
    check_complete(paths, rows.keys(), "a row in " + " or ".join(files), folder, "add it")
    return Metadata(folder, files, paths, [rows[path][0] for path in paths])


def check_complete(paths: Sequence[str], found: Any, what: str, folder: str, remedy: str) -> None:
    """Raises ValueError, which names the first image without an entry and counts the others.

    Args:
        paths: Paths of the images.
        found: Paths that have an entry; a set, or the keys of a mapping.
        what: Description of the entry, which follows "Expected".
        folder: Folder of the images.
        remedy: Advice that follows "Fix:".
    """
    if missing := [path for path in paths if path not in found]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(
            f"Expected {what} for each of {len(paths)} pictures in {folder}, got none for "
            f"{missing[0]!r}{more}. Fix: {remedy}, or move the picture away."
        )


def _check_files(folder: str, rows: Mapping[str, tuple[Row, str]], known: set[str]) -> None:
    """Raises ValueError for rows of files that do not exist."""
    absent = [
        path
        for path in rows
        if path not in known and not os.path.isfile(os.path.join(folder, path))
    ]
    if absent:
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise ValueError(
            f"{rows[absent[0]][1]}: expected the name of a file in {folder}, got {absent[0]!r}, "
            f"which does not exist{more}. Fix: correct the name, or delete the row."
        )


def _path(folder: str, file: str, place: str, row: Row) -> str:
    """Returns the path of a row's image, relative to the folder."""
    name = row.get(NAME_COLUMN)
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"{place}: expected a {NAME_COLUMN}, got {name!r:.40} among the columns "
            f"{', '.join(row) or 'none'}. Fix: add the path of the image, relative to {file}."
        )
    plain = name.replace("\\", "/") if os.sep == "\\" else name
    path = posixpath.normpath(posixpath.join(posixpath.dirname(file), plain))
    if posixpath.isabs(path) or path.split("/")[0] == "..":
        raise ValueError(
            f"{place}: expected a {NAME_COLUMN} inside of {folder}, got {name!r:.100}. "
            "Fix: give the path of the image relative to the table."
        )
    return path


def _numbers(value: Any) -> np.ndarray | None:
    """Returns a number, or a list of numbers, as float32 [numbers]; None for other values."""
    try:
        if isinstance(value, bool | None) or (isinstance(value, str) and not value.strip()):
            return None
        numbers = np.array(value, dtype=np.float64).reshape(-1)
        with np.errstate(over="ignore"):
            return numbers.astype(np.float32)
    except (ValueError, TypeError, OverflowError):
        return None
