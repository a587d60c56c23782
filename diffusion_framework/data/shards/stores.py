"""Remote files of the protocols that fsspec reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from ...parts.extras import require
from .remote import Remote, TemporaryError, Version, one_line

_BLOCK = 2**24  # bytes of one request
_STAMPS = (
    *("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created", "ino"),
    *("md5", "md5Hash", "content_md5", "crc32c", "sha", "sha256", "blob_id", "VersionId"),
    *("generation", "modified", "modifiedTime"),
)


@final
class StoredFile(Remote):
    """File of an object store or another protocol, such as s3://bucket/shard.tar."""

    def stated_version(self) -> Version:
        with self._connected() as (system, path):
            info = system.info(path)
        if info.get("size") is None:
            raise ValueError(
                f"Expected a server that states file sizes, got no size of shard {self.name!r}. "
                "Fix: download the shard first."
            )
        return Version(info["size"], " ".join(str(info[key]) for key in _STAMPS if info.get(key)))

    def blocks(self, start: int, version: Version) -> Iterator[tuple[int, bytes]]:
        with self._connected() as (system, path):
            for offset in range(start, version.size, _BLOCK):
                end = min(offset + _BLOCK, version.size)
                block = system.cat_file(path, start=offset, end=end)
                yield offset, block
                if len(block) != end - offset:
                    break
        # fsspec reads without a condition, so the version is compared afterwards
        now = self.stated_version()
        if now != version and version.stamp and now.stamp:
            raise self.changed(f"{now.size} bytes {one_line(now.stamp)}")

    @contextmanager
    def _connected(self) -> Iterator[tuple[Any, str]]:
        """Yields the file system of the URL and the path in it; see `Remote` for exceptions."""
        require("fsspec", f"shard {self.name!r}")
        from fsspec.core import url_to_fs

        try:
            yield url_to_fs(self.name)  # not cached: connections do not survive a fork
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"Expected an existing shard, got {self.name!r}. Fix: check the URL."
            ) from error
        except PermissionError as error:
            raise OSError(
                f"Expected a reachable shard, got {self.name!r} ({_described(error)}). "
                "Fix: check the URL and the access rights."
            ) from error
        except (ImportError, ValueError) as error:  # unknown protocol, or it needs a package
            raise ValueError(
                f"Expected a readable shard, got {self.name!r} ({_described(error)}). "
                "Fix: check its protocol."
            ) from error
        except Exception as error:  # each file system has its own exceptions
            raise TemporaryError(_described(error)) from error


def _described(error: BaseException) -> str:
    return one_line(f"{type(error).__name__} {error}")
