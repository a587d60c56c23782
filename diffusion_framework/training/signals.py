"""Signals that end a run in good order: noted when they come, acted on between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, NoReturn

# SIGUSR1 is what batch systems can send some time before the end (Slurm: --signal=USR1@120).
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_ECHO = 1.0  # seconds in which a launcher passes on a signal that its whole group got already


class NotedSignals:
    """Within `with`, the first of these signals is noted; one more, a second or longer after it, ends the process.

    Outside the main thread, where Python lets nobody handle signals, nothing is noted.

    Attributes:
        received: The signal that came; 0 if none did.
    """

    received = 0

    def __enter__(self) -> NotedSignals:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > _ECHO:
            end_process(number)


def end_process(number: int, message: str = "") -> NoReturn:
    """End as processes do that a signal ends: KeyboardInterrupt for Ctrl-C, else exit code 128 + number."""
    raise KeyboardInterrupt(message) if number == signal.SIGINT else SystemExit(128 + number)


def outlive_signals(parent_ended: Event, _: int = 0) -> None:
    """In a data worker: leave the signals to the parent, which may need the worker for the step in progress."""

    def leave(number: int, frame: FrameType | None) -> None:
        if parent_ended.is_set():
            os._exit(0)

    for number in STOP_SIGNALS:
        signal.signal(number, leave)
