"""Audit hook that records processes, imports, writes and sockets while a file is read."""

import os
import sys
from contextlib import contextmanager

_WATCHED = {
    "ctypes.dlopen",
    "os.chmod",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.spawn",
    "os.symlink",
    "os.system",
    "os.truncate",
    "pickle.find_class",
    "shutil.move",
    "shutil.rmtree",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
    "sqlite3.connect",
    "subprocess.Popen",
    "urllib.Request",
    "webbrowser.open",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_seen: list[tuple[str, str]] | None = None


def _hook(event: str, args: tuple) -> None:
    if _seen is None:
        return
    if event == "os.chmod" and isinstance(args[0], int):
        return  # of an open file, as locks have; opening it to write was seen
    if event in _WATCHED or (event == "open" and _writes(*args)):
        _seen.append((event, str(args)[:100]))
    elif event == "import" and args[0].split(".")[0] not in _allowed and args[0] not in sys.modules:
        _seen.append((event, args[0]))


def _writes(path: object, mode: str | None, flags: int) -> bool:
    """Returns whether a file is opened for writing, by open() or, without a mode, by os.open()."""
    return bool(flags & _WRITING) if mode is None else bool(set(mode) & set("wax+"))


_allowed = {"diffusion_framework", "torch", "numpy", "encodings", "scipy"}
sys.addaudithook(_hook)  # an audit hook cannot be removed


@contextmanager
def watched():
    """Yields a list that collects events which no file may cause."""
    global _seen
    _seen = found = []
    try:
        yield found
    finally:
        _seen = None
