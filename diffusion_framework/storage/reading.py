"""Reads files that others may have written: regular files of a bounded size only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil


def check_regular(path: Path) -> int:
    """Returns the size of a file in bytes; links to files are followed.

    Raises:
        OSError: If the path cannot be read, or is a folder, pipe or device. Reading a pipe or a
            device might never end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(
            f"{path}: expected a regular file, got a folder, pipe or device. "
            "Fix: copy the file itself."
        )
    return status.st_size


def read_file(path: Path, most: int | None = None) -> bytes:
    """Returns the content of a regular file of at most this many bytes.

    Raises:
        OSError: If the file cannot be read or is not a regular file.
        ValueError: If it is larger.
    """
    size = check_regular(path)
    if most is not None and size > most:
        raise ValueError(
            f"{path}: expected at most {most} bytes, got {size}. Fix: give a smaller file."
        )
    return path.read_bytes()


def check_memory(size: int, what: str) -> None:
    """Checks that data of this size in bytes fit the free memory of this machine.

    Raises:
        ValueError: If they do not fit.
    """
    free = psutil.virtual_memory().available
    if size > free:
        raise ValueError(
            f"{what}: expected at most {1e-9 * free:.3g} GB, the free memory of this machine, got "
            f"{1e-9 * size:.3g} GB. Fix: give a part of the data."
        )
