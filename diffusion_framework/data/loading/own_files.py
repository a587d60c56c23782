"""Files of the cache folder: only this user's own ones are opened, and never through a link."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_DIGEST_SIZE = hashlib.sha256().digest_size
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
if sys.platform == "win32":
    _FLAGS = os.O_BINARY
else:
    _FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK  # opening a named pipe would block


class ForeignFileError(OSError):
    """Raised for a file of the cache folder that another user may have written."""


def open_own(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Opens a regular file of this user and returns its descriptor.

    Args:
        path: Path of the file.
        flags: Flags of `os.open`; with O_CREAT, a missing file is created for this user alone.

    Raises:
        FileNotFoundError: the file does not exist.
        ForeignFileError: it is a link or a folder, or others own it or may write to it.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ForeignFileError(_foreign(path, error.strerror or "unreadable")) from error
    if fault := _fault(os.fstat(descriptor)):
        os.close(descriptor)
        raise ForeignFileError(_foreign(path, fault))
    return descriptor


def create_own(path: str | os.PathLike[str]) -> int:
    """Creates a file for this user alone, in place of any other, and returns its descriptor.

    Raises:
        ForeignFileError: a folder, or a file that this user cannot delete, is in the way.
        OSError: the file cannot be created.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ForeignFileError(_foreign(path, error.strerror or "undeletable")) from error
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a lock between processes; its file is this user's own and not a link.

    Raises:
        ForeignFileError: see `open_own`.
        OSError: the file cannot be created.
    """
    os.close(open_own(path, os.O_RDWR | os.O_CREAT))
    with FileLock(path):
        yield


def read_sealed(path: Path) -> bytes | None:
    """Returns the content that `write_sealed` wrote, or None if it is missing or damaged."""
    try:
        with open(open_own(path), "rb") as file:
            sealed = file.read()
    except OSError:
        return None
    content, digest = sealed[:-_DIGEST_SIZE], sealed[-_DIGEST_SIZE:]
    return content if hashlib.sha256(content).digest() == digest else None


def write_sealed(path: Path, content: bytes, part: Path) -> None:
    """Writes a file with its checksum behind it, all or nothing.

    Args:
        path: Path of the file.
        content: Content of the file.
        part: Path of a temporary file in the same folder.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with open(part, "wb", opener=lambda path, _: create_own(path)) as file:
            file.write(content + hashlib.sha256(content).digest())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _fault(status: os.stat_result) -> str | None:
    """Returns the reason not to trust a file, or None."""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if sys.platform == "win32":
        return None
    if status.st_uid != os.geteuid():
        return f"a file of user {status.st_uid}"
    if status.st_mode & _WRITABLE_BY_OTHERS:
        return "a file that others may write to"
    return "a file with several names" if status.st_nlink > 1 else None


def _foreign(path: str | os.PathLike[str], got: str) -> str:
    return f"Expected a cache file of this user, got {os.fspath(path)!r} ({got}). Fix: delete it."
