"""Shards over HTTP, from a server in this process that fails in every way."""

import io
import re
import socket
import struct
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from grey_images import greys
from tar_shards import open_shards, png, write_tar

from diffusion_framework.data.shards import remote

TAG, DATE = '"one"', "Sat, 28 Nov 2026 01:00:00 GMT"


class Server(ThreadingHTTPServer):
    """Server of files; `faults` holds functions of a handler, one for each coming request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.headers = {}, {"ETag": TAG, "Last-Modified": DATE}
        self.faults, self.requests, self.ranges = [], [], True
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Says nothing when a client leaves."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        if self.server.faults and (fault := self.server.faults.pop(0)) is not None:
            return fault(self)
        self.answer()

    def answer(self, piece=2**20, pause=0.0, until=None):
        """Answers as a good server does, slowly, or only up to byte `until`."""
        content = self.server.files[self.path]
        first, last = 0, len(content) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked and self.server.ranges and condition in (None, *self.server.headers.values()):
            first, last = int(asked[1]), int(asked[2] or last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        for start in range(first, min(last + 1, until or last + 1), piece):
            self.wfile.write(content[start : min(start + piece, last + 1, until or last + 1)])
            self.wfile.flush()
            time.sleep(pause)

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.wfile = self.rfile = io.BytesIO()


def refuse(code, words="", **headers):
    """A fault: an error page."""

    def answer(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(words.encode())

    return answer


def stall(handler):
    """A fault: half of the file, then silence."""
    handler.answer(until=1500)
    time.sleep(0.3)


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch):
    """The waits between attempts, which take no time; a connection stalls after 0.2 seconds."""
    waits = []
    monkeypatch.setattr(remote, "time", type("time", (), {"sleep": waits.append}))
    monkeypatch.setattr(remote, "IDLE_SECONDS", 0.2)
    return waits


def put(server, tmp_path, *values, name="/a.tar"):
    """Serves a shard of grey images; returns its URL."""
    path = write_tar(tmp_path / "made.tar", {f"{i}.png": png(v) for i, v in enumerate(values)})
    server.files[name] = path.read_bytes()
    return server.url + name


def ranges(server):
    return [headers.get("Range") for headers in server.requests]


def test_a_download_goes_on_after_every_fault_that_may_pass(server, pauses, tmp_path):
    where = put(server, tmp_path, 3, 4, 5)
    server.faults = [refuse(503), refuse(429, Retry_After="7"), Handler.reset, None]
    server.faults += [stall, lambda handler: handler.answer(until=2500), Handler.reset]
    server.faults += [refuse(502, Retry_After=formatdate(time.time() + 90, usegmt=True))]
    assert greys(open_shards(where, tmp_path)) == [3, 4, 5]
    starts = [0, 1500, 2500, 2500, 2500]
    assert ranges(server) == ["bytes=0-0"] * 4 + [f"bytes={start}-" for start in starts]
    assert all(headers["If-Range"] == TAG for headers in server.requests[4:])
    shortest = [1, 7, 4, 1, 2, 4, 88]
    assert all(low <= wait <= 1.6 * low for low, wait in zip(shortest, pauses, strict=True))


def test_a_slow_download_has_no_time_limit(server, pauses, tmp_path):
    where = put(server, tmp_path, 6)
    server.faults = [None, lambda handler: handler.answer(piece=1024, pause=0.05)]
    began = time.monotonic()
    assert greys(open_shards(where, tmp_path)) == [6]
    assert time.monotonic() - began > 2 * remote.IDLE_SECONDS and not pauses


def test_a_server_without_ranges_sends_the_file_again(server, pauses, tmp_path):
    server.ranges = False
    where = put(server, tmp_path, 7, 8)
    server.faults = [None, lambda handler: handler.answer(until=1500)]
    assert greys(open_shards(where, tmp_path)) == [7, 8]
    assert len(server.requests) == 3 and len(pauses) == 1


@pytest.mark.parametrize(
    ("code", "kind", "got"),
    [
        (404, FileNotFoundError, "Expected an existing shard"),
        (403, OSError, "Expected a reachable shard"),
        (400, OSError, "Expected a reachable shard"),
    ],
)
def test_refusals_are_not_tried_again_and_the_server_is_quoted(
    server, pauses, tmp_path, code, kind, got
):
    page = "<html><title>x</title>\n<b>The key\x1b[31m has\texpired</b></html>"
    server.faults = [refuse(code, page)]
    with pytest.raises(kind, match=rf"{got}, got '.*/a\.tar' \({code} .*: The key \[31m has exp"):
        open_shards(put(server, tmp_path, 1), tmp_path)
    assert len(server.requests) == 1 and not pauses


def test_attempts_end_and_the_last_reason_is_said(server, pauses, tmp_path):
    where = put(server, tmp_path, 1)
    server.faults = [refuse(503, "Down for maintenance,\nback at noon")] * 99
    message = r"503 Service Unavailable: Down for maintenance, back at noon\) in 6 attempts. Fix"
    with pytest.raises(OSError, match=message):
        open_shards(where, tmp_path)
    server.faults = [refuse(503, Retry_After="99999999")] * 99
    with pytest.raises(OSError, match="in 6 attempts"):
        open_shards(where, tmp_path)
    server.faults = [None] + [lambda handler: time.sleep(0.3)] * 99
    with pytest.raises(OSError, match=r"no data for 0\.2 seconds\) in 6 attempts"):
        open_shards(where, tmp_path)
    assert len(pauses) == 15 and max(pauses) <= 450
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="Connection refused") as caught:
            open_shards(f"http://127.0.0.1:{unused.getsockname()[1]}/a.tar", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stamps", [{"ETag": TAG}, {"Last-Modified": DATE}, {"ETag": 'W/"1"'}, {}])
def test_changed_content_is_noticed_at_the_next_start_and_during_a_run(
    server, pauses, tmp_path, stamps
):
    """Its size stays; without ETag and Last-Modified, the content is hashed."""
    server.headers = stamps
    where = put(server, tmp_path, 1, 2)
    first = open_shards(where, tmp_path)
    assert greys(first) == [1, 2]
    requests = len(server.requests)
    assert greys(open_shards(where, tmp_path)) == [1, 2]
    assert len(server.requests) == requests + (1 if stamps else 2), "the copy serves again"
    put(server, tmp_path, 11, 12)
    server.headers = {
        name: f"{value[:-8]}{value[-8:].swapcase()}" for name, value in stamps.items()
    }
    if stamps == {"Last-Modified": DATE}:
        server.headers = {"Last-Modified": DATE.replace("01:", "02:")}
    if stamps == {"ETag": 'W/"1"'}:
        server.headers = {"ETag": 'W/"2"'}
    now = open_shards(where, tmp_path)
    assert greys(now) == [11, 12] and now.fingerprint() != first.fingerprint()
    for copy in (tmp_path / "cache" / "shards").rglob("*.tar"):
        copy.unlink()
    first._opened.clear()
    with pytest.raises(ValueError, match="Expected an unchanged shard .* Fix: restart"):
        first[0]
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_change_amid_a_download_starts_anew_with_the_next_dataset(server, pauses, tmp_path):
    where = put(server, tmp_path, 1, 2)

    def cut_and_change(handler):
        handler.answer(until=1500)
        put(server, tmp_path, 8, 9)
        server.headers = {"ETag": '"two"'}

    server.faults = [None, cut_and_change]
    with pytest.raises(ValueError, match='Expected an unchanged shard .* got 10240 bytes "two"'):
        open_shards(where, tmp_path)
    assert greys(open_shards(where, tmp_path)) == [8, 9]


def test_a_killed_download_is_resumed_by_the_next_process(server, pauses, tmp_path, monkeypatch):
    where = put(server, tmp_path, 1, 2)
    monkeypatch.setattr(remote, "_ATTEMPTS", 1)
    server.faults = [None, lambda handler: handler.answer(until=1500)]
    with pytest.raises(OSError, match="the connection closed after 1500 of 10240 bytes"):
        open_shards(where, tmp_path)
    assert greys(open_shards(where, tmp_path)) == [1, 2]
    assert ranges(server)[-1] == "bytes=1500-"


def test_a_password_stays_with_its_server(server, tmp_path, pauses):
    with Server() as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        put(other, tmp_path, 5)
        server.faults = [refuse(302, Location=f"{other.url}/a.tar")] * 2
        where = server.url.replace("//", "//me:p%40ss@") + "/a.tar"
        assert greys(open_shards(where, tmp_path)) == [5]
        assert {headers["Authorization"] for headers in server.requests} == {"Basic bWU6cEBzcw=="}
        assert not any("Authorization" in headers for headers in other.requests)
        other.shutdown()
