"""The texts of images: files beside them, or columns of a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .metadata import Metadata, check_complete, metadata_files
from .tables import read_text

_COLUMN = "text"
_ENDING = ".txt"


def captions(
    folder: str, paths: Sequence[str], chosen: bool | str, metadata: Callable[[], Metadata]
) -> tuple[list[str], int]:
    """Returns the text of each image, and the number of .txt files they come from.

    Args:
        folder: Absolute path of the folder of images.
        paths: Paths of the images relative to it.
        chosen: True for a .txt file beside each image or, without any, the column `text` of a
            table; otherwise names of columns, separated by commas.
        metadata: Reads the tables.

    Raises:
        ValueError: an image without text, an unknown column, or texts in both places.
    """
    if isinstance(chosen, str):
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        if not names:
            raise ValueError(
                f"Expected names of columns as captions, got {chosen!r}. "
                "Fix: set it to true, or name a column, such as text."
            )
        return _checked(paths, metadata().texts(names, "captions"), "the metadata"), 0
    files = [os.path.splitext(path)[0] + _ENDING for path in paths]
    found = {
        path
        for path, file in zip(paths, files, strict=True)
        if os.path.isfile(os.path.join(folder, file))
    }
    tables = metadata_files(folder, paths)
    has_column = bool(tables) and _COLUMN in metadata().columns
    if found and has_column:
        raise ValueError(
            f"Expected captions in one place, got .txt files and the column {_COLUMN!r} of "
            f"{tables[0]}. Fix: set captions to {_COLUMN}, or delete that column."
        )
    if has_column or (tables and not found):
        return _checked(paths, metadata().texts([_COLUMN], "captions"), "the metadata"), 0
    check_complete(paths, found, "a caption, a .txt file,", folder, "write it")
    texts = [read_text(Path(folder) / file).strip() for file in files]
    return _checked(paths, texts, "its .txt file"), len(set(files))


def _checked(paths: Sequence[str], texts: list[str], place: str) -> list[str]:
    """Returns texts that are neither empty nor hold characters that have no encoding."""
    for path, text in zip(paths, texts, strict=True):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Expected a caption of Unicode characters, got {text[:40]!a} for {path!r}. "
                "Fix: correct it."
            ) from error
        if not text.strip():
            raise ValueError(
                f"Expected a caption for each picture, got an empty one in {place} for {path!r}. "
                "Fix: write it, or move the picture away."
            )
    return texts
