"""A lock that gives each results folder to one run at a time."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from accelerate import Accelerator

from .distributed import on_main_process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunLock:
    """A lock on a results folder, held until `release` or the end of the process, however that comes.

    It is a POSIX record lock on `.lock` there: held by the process alone and not by workers that it forked, and seen
    from other machines through NFS. Where the file system has no locks, a warning says so; on Windows there is none.

    Args:
        folder: Made if needed.

    Raises:
        ValueError: another process owns it; nothing was written.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file: IO[str] = open(folder / ".lock", "a+")  # noqa: SIM115 (held until release)
        try:
            if fcntl is not None:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                self.file.seek(0)
                owner = self.file.read().strip() or "another process"
                self.file.close()
                raise ValueError(
                    f"{folder} is in use by {owner}; wait for it to end, or choose another results_folder"
                ) from error
            warnings.warn(
                f"no locks on the file system of {folder}: see to it that one run at a time uses it", stacklevel=2
            )
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self.file.flush()

    def release(self) -> None:
        """Give the folder up."""
        self.file.close()


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Holds the lock of a results folder, by the main process for all. Raises as `RunLock` does."""
    lock = on_main_process(accelerator, lambda: RunLock(folder))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
