"""Where shards lie, in files or behind addresses, and how they are read: remote ones by way of a few local copies."""

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

_ATTEMPTS = 5  # to fetch a shard, with pauses of 1, 2, 4 and 8 seconds
_LOCKS = 64  # files, however many shards there are
_AT_ONCE = 16  # requests for the sizes of shards


def shard_names(shards: str | Sequence[str]) -> list[str]:
    """Names of shards, in order: braces expanded, and for files `~` and the wildcards of the shell as well.

    Raises:
        ValueError: no name, malformed braces, or nothing that matches a wildcard.
    """
    names = []
    for pattern in [shards] if isinstance(shards, str) else shards:
        for name in [pattern] if os.path.exists(pattern) else expand_braces(pattern):
            if is_remote(name):
                names.append(name)
                continue
            path = os.path.expanduser(name.removeprefix("file://"))
            found = sorted(glob.glob(path)) if glob.has_magic(path) and not os.path.exists(path) else [path]
            if not found:
                raise ValueError(f"no shard matches {name!r}; check the path")
            names += found
    if not names:
        raise ValueError("no shards given; name tar files, such as train-{000..099}.tar")
    return names


def expand_braces(text: str) -> list[str]:
    """`a-{08..10}.tar` and `{train,val}.tar` as the shell expands them, also within each other.

    Raises:
        ValueError: braces that do not match, and such as are neither a list nor a rising range.
    """
    if "{" not in text and "}" not in text:
        return [text]
    wrong = ValueError(f"malformed braces in {text!r}; write a range such as {{000..099}} or a list such as {{a,b}}")
    start = text.find("{")
    depth, cuts = 0, [start]
    for place in range(start, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0 or (depth == 1 and text[place] == ","):
            cuts.append(place)
        if depth == 0:
            break
    if start < 0 or depth or "}" in text[:start]:
        raise wrong
    inside = [text[a + 1 : b] for a, b in pairwise(cuts)]
    if len(inside) == 1:
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", inside[0])
        if ends is None or int(ends[1]) > int(ends[2]):
            raise wrong
        padded = any(len(end) > 1 and end[0] == "0" for end in ends.groups())
        width = max(map(len, ends.groups())) if padded else 0
        inside = [f"{number:0{width}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]
    rests = expand_braces(text[cuts[-1] + 1 :])
    return [text[:start] + head + rest for item in inside for head in expand_braces(item) for rest in rests]


def is_remote(name: str) -> bool:
    """Whether a name is an address for fsspec, such as s3://bucket/shard.tar."""
    return "://" in name and not name.startswith("file://")


def version(name: str) -> tuple[int, str]:
    """The size of a shard in bytes, and a text that changes whenever its content does.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be reached.
        ValueError: what an address needs is not installed, or its size is unknown.
    """
    if not is_remote(name):
        if not os.path.isfile(name):
            raise FileNotFoundError(f"there is no shard {name!r}; check the path")
        status = os.stat(name)
        return status.st_size, f"{os.path.abspath(name)} {status.st_size} {status.st_mtime_ns}"
    with _reaching(name) as (system, path):
        info = system.info(path)
    if info.get("size") is None:
        raise ValueError(f"shard {name!r} comes from a server that does not tell its size; fetch it by other means")
    times = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created")
    return info["size"], f"{name} {info['size']} {next((info[key] for key in times if info.get(key)), '')}"


class ShardFiles:
    """Shards by number, open for reading. Of remote ones, the last few that were asked for are kept on a local disk.

    Args:
        names: Of the shards.
        folder: Where copies of remote ones are kept.
        keep: How many of them.

    Raises:
        OSError, ValueError: as `version`.
    """

    def __init__(self, names: Sequence[str], folder: Path, keep: int) -> None:
        self.names, self.folder, self.keep = names, folder, keep
        self.sizes, self.versions = zip(*side_by_side(version, names, _AT_ONCE), strict=True)

    def open(self, shard: int) -> BinaryIO:
        """The shard's file, or the copy of it, fetched first unless it is there.

        Processes that want the same one fetch it once. An open copy stays readable when it is dropped.

        Raises:
            OSError: it cannot be read or fetched.
            ValueError: it has another size than when the data set was made.
        """
        name, size = self.names[shard], self.sizes[shard]
        file = self._copy(name, self.versions[shard], size) if is_remote(name) else open(name, "rb")  # noqa: SIM115
        if (now := os.fstat(file.fileno()).st_size) != size:
            file.close()
            raise ValueError(f"shard {name!r} had {size} bytes and has {now} now; start again with those it has")
        return file

    def _copy(self, name: str, version: str, size: int) -> BinaryIO:
        key = hashed(version)
        path = self.folder / f"{key}.tar"

        def whole() -> bool:  # of another size: the machine lost power before all was on the disk
            with suppress(FileNotFoundError):
                return path.stat().st_size == size
            return False

        while True:
            with suppress(FileNotFoundError):
                if whole():
                    os.utime(path)  # the one used last is dropped last
                    return open(path, "rb")
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{int(key, 16) % _LOCKS}.lock"):
                if not whole():
                    _fetch(name, path, size)
                with suppress(FileNotFoundError):  # dropped by another at once
                    file = open(path, "rb")  # noqa: SIM115
                    self._drop()
                    return file

    def _drop(self) -> None:
        used = {}
        for path in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):
                used[path] = path.stat().st_mtime_ns
        for path in sorted(used, key=used.__getitem__)[: -self.keep]:
            with suppress(FileNotFoundError, PermissionError):  # dropped by another; in use, on Windows
                path.unlink()


def _fetch(name: str, path: Path, size: int) -> None:
    """Fetch a whole shard, trying again for a while where the connection fails."""
    part = path.with_suffix(".part")
    for attempt in range(_ATTEMPTS):
        try:
            with _reaching(name) as (system, remote):
                system.get_file(remote, part)
            if (got := part.stat().st_size) != size:
                raise OSError(f"shard {name!r} came with {got} bytes of {size}; if it was changed, start again")
            os.replace(part, path)
            return
        except OSError:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(2**attempt)


@contextmanager
def _reaching(name: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address and the path in it; whatever it raises becomes one line that names the shard."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ValueError(f"shard {name!r} needs fsspec; install it with pip install -e '.[shards]'") from error
    try:
        yield url_to_fs(name)  # anew each time: connections do not survive a fork
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no shard {name!r}; check the address") from error
    except (ImportError, ValueError) as error:  # a protocol that is unknown, or needs another package
        raise ValueError(f"shard {name!r} cannot be read: {_line(error)}") from error
    except Exception as error:  # file systems have exceptions of their own
        raise OSError(f"shard {name!r} cannot be reached: {_line(error)}; check the address and the access") from error


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())


def side_by_side(call: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`map` with threads, which begins nothing new once a call has failed."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(call, items)
    finally:
        pool.shutdown(cancel_futures=True)


def hashed(*texts: object) -> str:
    """A hexadecimal key."""
    return hashlib.sha256("\0".join(map(str, texts)).encode("utf-8", "surrogateescape")).hexdigest()
