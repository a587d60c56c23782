"""Locks a results folder, so that only one run at a time uses it."""

from __future__ import annotations

import errno
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from accelerate import Accelerator

from .distributed import on_main_process

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 30  # on Windows, far behind the name of the owner, which others may then read
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunLock:
    """Lock on a results folder, held until `release` or the end of the process, even by a kill.

    It is a POSIX record lock on the file `.lock`. Forked workers do not hold it, and other machines
    see it through NFS. A file system without locks causes a warning. Windows locks one byte of it.

    Args:
        folder: Results folder, which is made if needed.

    Raises:
        ValueError: If another process holds the lock; nothing is written then. Also if `.lock`
            is a link.
        OSError: If the folder is not writable.
    """

    def __init__(self, folder: Path) -> None:
        self.file = _open(folder)
        try:
            _lock(self.file)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                self.file.seek(0)
                owner = self.file.read().strip() or "another process"
                self.file.close()
                raise ValueError(
                    f"Expected a results_folder that no other run uses, got {folder}, in use by "
                    f"{owner}. Fix: wait for its end, or choose another results_folder."
                ) from error
            warnings.warn(
                f"The file system of {folder} has no locks. Let only one run at a time use it.",
                stacklevel=2,
            )
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self.file.flush()

    def release(self) -> None:
        """Releases the lock."""
        self.file.close()


def _lock(file: IO[str]) -> None:
    """Locks a file; raises OSError if another process has locked it."""
    if sys.platform == "win32":
        os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
    else:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open(folder: Path) -> IO[str]:
    """Opens the lock file of a results folder, which is made if needed; raises like `RunLock`."""
    path = folder / ".lock"
    if path.is_symlink():
        raise ValueError(
            f"{path}: expected a file of this run, got a link, whose target would be emptied. "
            "Fix: delete the link."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"Expected a results_folder that can be written, got an error ({error}). "
            "Fix: choose another results_folder, or change its permissions."
        ) from error


def is_locked(folder: Path) -> bool:
    """Returns whether another process holds the lock of a results folder.

    A process that holds it must not ask, as it would lose it.
    """
    path = folder / ".lock"
    if fcntl is None or path.is_symlink() or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


@contextmanager
def locked(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Locks a results folder for all processes inside the context; raises like `RunLock`."""
    lock = on_main_process(accelerator, lambda: RunLock(folder))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
