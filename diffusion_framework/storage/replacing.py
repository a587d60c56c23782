"""Writes single files atomically: a file is either the old one or the complete new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: Path, mode: str = "b", **options: Any) -> Iterator[IO[Any]]:
    """Opens a new file, which takes the place of `path` at the end of the context.

    The folder is made if needed. At an error, the new file is deleted and `path` is unchanged. A
    link at `path` is replaced, not followed.

    Args:
        path: Path of the file.
        mode: 'b' for bytes, 't' for text in UTF-8 with the line ends of Linux.
        options: Further arguments of `open`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # of a killed process, or a link that others have put there
    try:
        if mode == "t":
            options = {"encoding": "utf-8", "newline": "\n", **options}
        with open(temporary, f"x{mode}", **options) as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
