"""Remote files: their version, and downloads that go on where they stopped."""

from __future__ import annotations

import hashlib
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..loading.own_files import ForeignFileError, create_own, open_own

R = TypeVar("R")

IDLE_SECONDS = 60.0  # without a byte, before a connection counts as stalled
_ATTEMPTS = 6  # before giving up, with growing waits in between
_LONGEST_WAIT = 300.0  # seconds, also where a server asks for more
_PROGRESS = 2**20  # bytes after which attempts are counted anew
_HASHED = "sha256 "


class TemporaryError(Exception):
    """Raised for a failure that may pass, and caught by `Remote`.

    Args:
        message: Reason on one line.
        wait: Seconds after which the server asks to try again, or None.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Version:
    """Version of a remote file.

    Args:
        size: Size in bytes.
        stamp: Text that changes with the content, such as the ETag; empty if the server states
            none.
    """

    size: int
    stamp: str


class Remote(ABC):
    """Remote file.

    Args:
        name: URL of the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def stated_version(self) -> Version:
        """Returns the version that the server states.

        Raises:
            FileNotFoundError: the file does not exist.
            TemporaryError: a failure that may pass.
            OSError: the file cannot be reached.
            ValueError: the server does not state the size, or a package is missing.
        """

    @abstractmethod
    def blocks(self, start: int, version: Version) -> Iterator[tuple[int, bytes]]:
        """Yields the content in blocks with their offsets, from `start` or from an earlier byte.

        Raises:
            ValueError: the file has changed since `version`.
            FileNotFoundError, TemporaryError, OSError: see `stated_version`.
        """

    def version(self) -> Version:
        """Returns the version of the file; reads all of it if the server states only its size.

        Raises:
            FileNotFoundError, OSError, ValueError: see `stated_version`.
        """
        version = self._retried(self.stated_version)
        return version if version.stamp else Version(version.size, self._hashed(version))

    def download(self, path: Path, version: Version) -> None:
        """Downloads the file to `path`, going on where an earlier download stopped.

        Raises:
            ValueError: the file has changed since `version`.
            FileNotFoundError, OSError: see `stated_version`.
        """
        part = path.with_suffix(".part")
        try:
            descriptor = open_own(part, os.O_RDWR)
        except (FileNotFoundError, ForeignFileError):
            descriptor = create_own(part)
        try:
            with open(descriptor, "r+b") as file:
                self._retried(lambda: self._complete(file, version), lambda: _size(file))
                os.fsync(file.fileno())  # a power failure would leave a file of zeros
                if version.stamp.startswith(_HASHED) and _hash(file) != version.stamp:
                    raise self.changed(f"{version.size} other bytes")
        except ValueError:
            part.unlink()
            raise
        os.replace(part, path)

    def changed(self, got: str) -> ValueError:
        """Returns the error for a file that has changed.

        Args:
            got: Present version.
        """
        return ValueError(
            f"Expected an unchanged shard {self.name!r}, got {got}. "
            "Fix: restart training, which lists the changed shard again."
        )

    def _complete(self, file: Any, version: Version) -> None:
        """Appends the missing content."""
        if _size(file) > version.size:
            file.truncate(0)
        if (start := _size(file)) == version.size:
            return
        for offset, block in self.blocks(start, version):
            file.seek(offset)
            file.write(block)
        if (got := _size(file)) != version.size:
            raise TemporaryError(f"the connection closed after {got} of {version.size} bytes")

    def _hashed(self, version: Version) -> str:
        """Returns a stamp from the content."""

        def read() -> str:
            digest, position = hashlib.sha256(), 0
            for _, block in self.blocks(0, version):
                digest.update(block)
                position += len(block)
            if position != version.size:
                raise TemporaryError(f"the connection closed after {position} bytes")
            return _HASHED + digest.hexdigest()

        return self._retried(read)

    def _retried(self, call: Callable[[], R], progress: Callable[[], int] = int) -> R:
        """Calls a function again after temporary failures.

        Args:
            call: Function to call.
            progress: Function that returns the number of bytes that stay after a failure.
        """
        failures = 0
        while True:
            before = progress()
            try:
                return call()
            except TemporaryError as error:
                failures = 1 if progress() - before >= _PROGRESS else failures + 1
                if failures == _ATTEMPTS:
                    raise OSError(
                        f"Expected a reachable shard, got {self.name!r} ({error}) in {_ATTEMPTS} "
                        "attempts. Fix: check the server, or resume later."
                    ) from error
                time.sleep(_wait(failures, error.wait))


def _wait(failures: int, asked: float | None) -> float:
    """Returns the seconds before the next attempt: random, so that processes do not meet."""
    shortest = 2.0 ** (failures - 1) if asked is None else asked
    return min(shortest, _LONGEST_WAIT) * random.uniform(1, 1.5)


def _hash(file: Any) -> str:
    """Returns the stamp of a file from its content."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_PROGRESS):
        digest.update(block)
    return _HASHED + digest.hexdigest()


def _size(file: Any) -> int:
    return file.seek(0, os.SEEK_END)


def one_line(text: object, limit: int = 300) -> str:
    """Returns a text on one line, without control characters, cut to `limit` characters."""
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
