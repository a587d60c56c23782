"""Remote files over HTTP."""

from __future__ import annotations

import base64
import errno
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from . import remote
from .remote import Remote, TemporaryError, Version, one_line

_BLOCK = 2**20
_WORDS = 1000  # bytes of an error page to read
_GONE = (404, 410)
_TEMPORARY = (408, 425, 429)


@final
class WebFile(Remote):
    """File over HTTP, read with the proxies and certificates of the environment.

    Downloads have no time limit in all. A connection without a byte for `IDLE_SECONDS` is stalled.
    """

    def stated_version(self) -> Version:
        # a signed URL may allow GET alone, so this asks for one byte instead of HEAD
        with self._answer({"Range": "bytes=0-0"}) as answer:
            return self._version(answer)

    def blocks(self, start: int, version: Version) -> Iterator[tuple[int, bytes]]:
        wanted = {"Range": f"bytes={start}-"}
        if unchanged := _condition(version.stamp):
            wanted["If-Range"] = unchanged  # a changed file comes whole, with its new stamp
        with self._answer(wanted) as answer:
            now = self._version(answer)
            stated = Version(version.size, "") if not now.stamp else version
            if now != stated:
                raise self.changed(f"{now.size} bytes {now.stamp}".strip())
            offset = _first_byte(answer)
            while block := self._read(answer):
                yield offset, block
                offset += len(block)

    def _version(self, answer: Any) -> Version:
        """Returns the version from the headers of an answer."""
        headers = answer.headers
        ranged = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
        size = ranged[1] if ranged else headers.get("Content-Length", "")
        whole = headers.get("Content-Encoding", "identity") == "identity"
        if not (whole and size.isdigit() and (ranged or answer.status == 200)):
            raise ValueError(
                f"Expected a server that states file sizes, got no size of shard {self.name!r}. "
                "Fix: download the shard first."
            )
        stamps = (headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip())
        return Version(int(size), " ".join(filter(None, stamps)))

    @contextmanager
    def _answer(self, headers: Mapping[str, str]) -> Iterator[Any]:
        """Yields the answer to a request."""
        parts = urlsplit(self.name)
        user, _, host = parts.netloc.rpartition("@")
        address = urlunsplit(
            (
                parts.scheme,
                host,
                quote(parts.path, safe="/%:@!$&'()*+,;=~"),
                quote(parts.query, safe="/%:@!$&'()*+,;=~?"),
                "",
            )
        )
        request = Request(address, headers={"Accept-Encoding": "identity", **headers})
        if user:  # not sent to a server that this one redirects to
            word = base64.b64encode(unquote(user).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {word}")
        try:
            answer = urlopen(request, timeout=remote.IDLE_SECONDS)
        except HTTPError as error:
            with error:
                raise self._refused(error) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._failed(error) from error
        with closing(answer):
            yield answer

    def _read(self, answer: Any) -> bytes:
        try:
            return answer.read1(_BLOCK)
        except (OSError, HTTPException) as error:
            raise self._failed(error) from error

    def _refused(self, error: HTTPError) -> Exception:
        """Returns the exception for an answer with an error code, with the server's own words."""
        words = f"{error.code} {error.reason}"
        try:
            page = error.read(_WORDS).decode("utf-8", "replace")
            page = re.sub(r"(?s)<(style|script|title).*?</\1>|<[^>]*>", " ", page)
            words = one_line(f"{words}: {page}") if page.strip() else one_line(words)
        except (OSError, HTTPException):
            words = one_line(words)
        if error.code in _GONE:
            return FileNotFoundError(
                f"Expected an existing shard, got {self.name!r} ({words}). Fix: check the URL."
            )
        if error.code in _TEMPORARY or error.code >= 500:
            return TemporaryError(words, _seconds(error.headers.get("Retry-After")))
        return self._unreachable(words)

    def _failed(self, error: Exception) -> Exception:
        """Returns the exception for a failed connection."""
        cause: object = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, TimeoutError):
            return TemporaryError(f"no data for {remote.IDLE_SECONDS:g} seconds")
        unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
        final = isinstance(cause, ssl.SSLCertVerificationError | ValueError) or unknown
        words = one_line(cause) or type(cause).__name__
        if isinstance(cause, OSError) and cause.errno in errno.errorcode and cause.strerror:
            words = one_line(cause.strerror)
        return self._unreachable(words) if final else TemporaryError(words)

    def _unreachable(self, words: str) -> OSError:
        return OSError(
            f"Expected a reachable shard, got {self.name!r} ({words}). "
            "Fix: check the URL and the access rights."
        )


def _condition(stamp: str) -> str:
    """Returns the part of a stamp that If-Range takes: a strong ETag, or the time of change."""
    tag = re.match(r'(W/)?"[^"]*"', stamp)
    if tag is None:
        return stamp if re.fullmatch(r"\w{3}, .* GMT", stamp) else ""
    return stamp[tag.end() :].strip() if tag[1] else tag[0]


def _first_byte(answer: Any) -> int:
    """Returns the offset of the first byte of an answer."""
    ranged = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(ranged[1]) if ranged and answer.status == 206 else 0


def _seconds(text: str | None) -> float | None:
    """Parses a Retry-After header, a number of seconds or a date."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
