"""Opens shards by number, local files directly and remote ones through a few local copies."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock

T, R = TypeVar("T"), TypeVar("R")

_ATTEMPTS = 5  # downloads of a shard before giving up, with pauses of 1, 2, 4 and 8 seconds
_LOCK_FILES = 64  # shared by all shards
_CONCURRENT_REQUESTS = 16  # for the sizes of shards


def shard_names(shards: str | Sequence[str]) -> list[str]:
    """Expands patterns into the names of shards, in order.

    Args:
        shards: Patterns with braces such as `{000..099}` (see `expand_braces`). Patterns of local
            files may also start with `~` and contain shell wildcards.

    Raises:
        ValueError: no name, malformed braces, or a wildcard that matches no file.
    """
    names = []
    for pattern in [shards] if isinstance(shards, str) else shards:
        for name in [pattern] if os.path.exists(pattern) else expand_braces(pattern):
            if is_remote(name):
                names.append(name)
                continue
            path = os.path.expanduser(name.removeprefix("file://"))
            found = (
                sorted(glob.glob(path))
                if glob.has_magic(path) and not os.path.exists(path)
                else [path]
            )
            if not found:
                raise ValueError(
                    f"Expected shards named {name!r}, got no match. Fix: check the path."
                )
            names += found
    if not names:
        raise ValueError(
            "Expected names of shards, got none. Fix: give tar files, such as train-{000..099}.tar."
        )
    return names


def expand_braces(text: str) -> list[str]:
    """Expands `a-{08..10}.tar` and `{train,val}.tar` as the shell does, nested braces included.

    Raises:
        ValueError: unbalanced braces, or braces that hold neither a list nor a rising range.
    """
    if "{" not in text and "}" not in text:
        return [text]
    malformed = ValueError(
        f"Expected braces such as {{000..099}} or {{a,b}}, got {text!r}. "
        "Fix: balance them, or let the range rise."
    )
    start = text.find("{")
    depth, cuts = 0, [start]
    for position in range(start, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0 or (depth == 1 and text[position] == ","):
            cuts.append(position)
        if depth == 0:
            break
    if start < 0 or depth or "}" in text[:start]:
        raise malformed
    items = [text[a + 1 : b] for a, b in pairwise(cuts)]
    if len(items) == 1:
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", items[0])
        if ends is None or int(ends[1]) > int(ends[2]):
            raise malformed
        padded = any(len(end) > 1 and end[0] == "0" for end in ends.groups())
        width = max(map(len, ends.groups())) if padded else 0
        items = [f"{number:0{width}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]
    tails = expand_braces(text[cuts[-1] + 1 :])
    return [
        text[:start] + middle + tail
        for item in items
        for middle in expand_braces(item)
        for tail in tails
    ]


def is_remote(name: str) -> bool:
    """Returns whether a name is a URL for fsspec, such as s3://bucket/shard.tar."""
    return "://" in name and not name.startswith("file://")


def version(name: str) -> tuple[int, str]:
    """Returns the size of a shard in bytes, and a text that changes with its content.

    Raises:
        FileNotFoundError: the shard does not exist.
        OSError: the shard cannot be reached.
        ValueError: a package that the URL needs is not installed, or the size is unknown.
    """
    if not is_remote(name):
        if not os.path.isfile(name):
            raise FileNotFoundError(
                f"Expected an existing shard, got {name!r}. Fix: check the path."
            )
        status = os.stat(name)
        return status.st_size, f"{os.path.abspath(name)} {status.st_size} {status.st_mtime_ns}"
    with _connect(name) as (system, path):
        info = system.info(path)
    if info.get("size") is None:
        raise ValueError(
            f"Expected a server that states file sizes, got no size of shard {name!r}. "
            "Fix: download the shard first."
        )
    stamps = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created")
    stamp = next((info[key] for key in stamps if info.get(key)), "")
    return info["size"], f"{name} {info['size']} {stamp}"


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
        self.sizes, self.versions = zip(
            *parallel_map(version, names, _CONCURRENT_REQUESTS), strict=True
        )

    def open(self, shard: int) -> BinaryIO:
        """Opens the file of a shard, or its local copy, which is downloaded if missing.

        Concurrent processes download a shard once. An open copy stays readable after its deletion.

        Raises:
            OSError: the shard cannot be read or downloaded.
            ValueError: the size of the shard has changed since the dataset was made.
        """
        name, size = self.names[shard], self.sizes[shard]
        if is_remote(name):
            file = self._copy(name, self.versions[shard], size)
        else:
            file = open(name, "rb")  # noqa: SIM115
        if (now := os.fstat(file.fileno()).st_size) != size:
            file.close()
            raise ValueError(
                f"Expected {size} bytes in shard {name!r}, got {now}. "
                "Fix: restart training, which lists the changed shard again."
            )
        return file

    def _copy(self, name: str, version: str, size: int) -> BinaryIO:
        """Opens the copy of a remote shard, downloading it if missing."""
        key = hashed(version)
        path = self.folder / f"{key}.tar"

        def is_complete() -> bool:  # a power failure may leave a file of another size
            with suppress(FileNotFoundError):
                return path.stat().st_size == size
            return False

        while True:
            with suppress(FileNotFoundError):
                if is_complete():
                    os.utime(path)  # marks it as the most recently used
                    return open(path, "rb")
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{int(key, 16) % _LOCK_FILES}.lock"):
                if not is_complete():
                    _download(name, path, size)
                with suppress(FileNotFoundError):  # deleted by another process
                    file = open(path, "rb")  # noqa: SIM115
                    self._delete_oldest()
                    return file

    def _delete_oldest(self) -> None:
        """Deletes all copies but the `keep` most recently used."""
        last_used = {}
        for path in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):
                last_used[path] = path.stat().st_mtime_ns
        for path in sorted(last_used, key=last_used.__getitem__)[: -self.keep]:
            # deleted by another process; or, on Windows, still open
            with suppress(FileNotFoundError, PermissionError):
                path.unlink()


def _download(name: str, path: Path, size: int) -> None:
    """Downloads a shard to `path`, retrying failed connections.

    Raises:
        OSError: all attempts failed, or the size differs from `size` in each.
    """
    part = path.with_suffix(".part")
    for attempt in range(_ATTEMPTS):
        try:
            with _connect(name) as (system, remote):
                system.get_file(remote, part)
            if (got := part.stat().st_size) != size:
                raise OSError(
                    f"Expected {size} bytes of shard {name!r}, got {got}. "
                    "Fix: restart training if the shard has changed."
                )
            os.replace(part, path)
            return
        except OSError:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(2**attempt)


@contextmanager
def _connect(name: str) -> Iterator[tuple[Any, str]]:
    """Yields the file system of a URL and the path in it.

    All exceptions inside become one line that names the shard.

    Raises:
        FileNotFoundError: the shard does not exist.
        OSError: the shard cannot be reached.
        ValueError: a package is missing, or the protocol is unknown.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ValueError(
            f"Expected the package fsspec for shard {name!r}, got none. "
            "Fix: pip install -e '.[shards]'."
        ) from error
    try:
        yield url_to_fs(name)  # not cached: connections do not survive a fork
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected an existing shard, got {name!r}. Fix: check the URL."
        ) from error
    except (ImportError, ValueError) as error:  # the protocol is unknown or needs another package
        raise ValueError(
            f"Expected a readable shard, got {name!r} ({_one_line(error)}). "
            "Fix: check its protocol."
        ) from error
    except Exception as error:  # each file system has its own exceptions
        raise OSError(
            f"Expected a reachable shard, got {name!r} ({_one_line(error)}). "
            "Fix: check the URL and the access rights."
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())


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
