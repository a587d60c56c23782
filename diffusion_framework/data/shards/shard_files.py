"""Opens shards by number, local files directly and remote ones through a few local copies."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..loading.own_files import ForeignFileError, locked, open_own
from .names import is_remote
from .remote import Remote, Version
from .stores import StoredFile
from .web import WebFile

T, R = TypeVar("T"), TypeVar("R")

_LOCK_FILES = 64  # shared by all shards
_CONCURRENT_REQUESTS = 16  # for the versions of shards
_ABANDONED = 86400.0  # seconds since the last byte of a partial download
_WEB = {"http": WebFile, "https": WebFile}


def remote_file(name: str) -> Remote:
    """Returns the file of a URL."""
    return _WEB.get(name.partition("://")[0].lower(), StoredFile)(name)


def version(name: str) -> Version:
    """Returns the size of a shard in bytes, and a text that changes with its content.

    Raises:
        FileNotFoundError: the shard does not exist.
        OSError: the shard cannot be reached.
        ValueError: a package that the URL needs is not installed, or the size is unknown.
    """
    if is_remote(name):
        return remote_file(name).version()
    if not os.path.isfile(name):
        raise FileNotFoundError(f"Expected an existing shard, got {name!r}. Fix: check the path.")
    return _local_version(os.stat(name))


class ShardFiles:
    """Opens shards by number; of remote shards, the most recently used ones are kept on disk.

    Args:
        names: Names of the shards.
        folder: Folder for the copies of remote shards.
        keep: Number of copies to keep.

    Raises:
        OSError, ValueError: see `version`.
    """

    def __init__(self, names: Sequence[str], folder: Path, keep: int) -> None:
        self.names, self.folder, self.keep = names, folder, keep
        self.versions: list[Version] = [*parallel_map(version, names, _CONCURRENT_REQUESTS)]

    def key(self, shard: int) -> str:
        """Returns a hexadecimal hash of the name and the version of a shard."""
        name, version = self.names[shard], self.versions[shard]
        place = name if is_remote(name) else os.path.abspath(name)
        return hashed(place, version.size, version.stamp)

    def open(self, shard: int) -> BinaryIO:
        """Opens the file of a shard, or its local copy, which is downloaded if missing.

        Concurrent processes download a shard once. An open copy stays readable after its deletion.

        Raises:
            OSError: the shard cannot be read or downloaded.
            ValueError: the shard has changed since the dataset was made.
        """
        name, version = self.names[shard], self.versions[shard]
        if is_remote(name):
            return self._copy(shard)
        file = open(name, "rb")  # noqa: SIM115
        if (now := _local_version(os.fstat(file.fileno()))) != version:
            file.close()
            got = f"{now.size} bytes" if now.size != version.size else "another file of this size"
            raise ValueError(
                f"Expected {version.size} bytes in shard {name!r}, got {got}. "
                "Fix: restart training, which lists the changed shard again."
            )
        return file

    def discard(self, shard: int, file: BinaryIO) -> None:
        """Deletes the damaged copy of a remote shard, unless another one has taken its place."""
        path = self.folder / f"{self.key(shard)}.tar"
        with suppress(FileNotFoundError):
            if is_remote(self.names[shard]) and os.path.samestat(
                path.lstat(), os.fstat(file.fileno())
            ):
                path.unlink()

    def _copy(self, shard: int) -> BinaryIO:
        """Opens the copy of a remote shard, downloading it if missing."""
        version, key = self.versions[shard], self.key(shard)
        path = self.folder / f"{key}.tar"
        while True:
            if (file := _opened(path, version.size)) is not None:
                return file
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / f"{int(key, 16) % _LOCK_FILES}.lock"):
                if (file := _opened(path, version.size)) is None:
                    remote_file(self.names[shard]).download(path, version)
                    with suppress(FileNotFoundError):  # deleted by another process
                        file = open(path, "rb")  # noqa: SIM115
                if file is not None:
                    self._delete_oldest()
                    return file

    def _delete_oldest(self) -> None:
        """Deletes all copies but the `keep` most recently used, and abandoned downloads."""
        for part in self.folder.glob("*.part"):
            with suppress(FileNotFoundError, PermissionError):
                if time.time() - part.lstat().st_mtime > _ABANDONED:
                    part.unlink()
        last_used = {}
        for path in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):
                last_used[path] = path.lstat().st_mtime_ns
        for path in sorted(last_used, key=last_used.__getitem__)[: -self.keep]:
            # deleted by another process; or, on Windows, still open
            with suppress(FileNotFoundError, PermissionError):
                path.unlink()


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Reads up to `size` bytes at an offset; the position of the file has no meaning."""
    if sys.platform != "win32":
        return os.pread(file.fileno(), size, offset)  # forked workers share the position of a seek
    file.seek(offset)
    return file.read(size)


def _opened(path: Path, size: int) -> BinaryIO | None:
    """Opens a whole copy of this user and marks it as used; None if there is none.

    A power failure may leave a file of another size.
    """
    with suppress(FileNotFoundError, ForeignFileError):
        file = open(open_own(path), "rb")  # noqa: SIM115
        if os.fstat(file.fileno()).st_size == size:
            with suppress(FileNotFoundError):
                os.utime(path)
            return file
        file.close()
    return None


def _local_version(status: os.stat_result) -> Version:
    return Version(status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}")


def parallel_map(call: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Maps `call` over `items` in threads; after a failure, no further call starts."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(call, items)
    finally:
        pool.shutdown(cancel_futures=True)


def hashed(*texts: object) -> str:
    """Returns the SHA-256 of the texts as a hexadecimal string."""
    return hashlib.sha256("\0".join(map(str, texts)).encode("utf-8", "surrogateescape")).hexdigest()
