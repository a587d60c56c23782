"""Records stop signals, and interrupts waits at a stop signal or a time limit."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, NoReturn

from accelerate import Accelerator

# Batch systems can send SIGUSR1 some time before they end a job (Slurm: --signal=USR1@120).
STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]
_ECHO = 1.0  # seconds within which a launcher may repeat a signal


class Interrupted(BaseException):
    """Raised where a run ends for a stop signal; no `except Exception` of a dataset catches it.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Overdue(BaseException):
    """Raised at the end of a time limit; no `except Exception` of a dataset catches it."""


class NotedSignals:
    """A context that records the first stop signal; a second one ends the process at once.

    A repetition within a second is ignored. Outside the main thread, where Python does not allow
    signal handlers, no signal is recorded.

    Attributes:
        received: Number of the signal, or 0.
        ended: Whether a second signal arrived.
    """

    received, ended = 0, False
    _interrupts = False

    def __enter__(self) -> NotedSignals:
        self._before: dict[int, Any] = {}
        if in_main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raises Interrupted inside the context, also for a signal that was received before."""
        self._interrupts = True
        try:
            if self.received:
                raise Interrupted(self.received)
            yield
        finally:
            self._interrupts = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._since = number, time.monotonic()
            if self._interrupts:
                raise Interrupted(number)
        elif time.monotonic() - self._since > _ECHO:
            self.ended = True
            end_process(number)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises Overdue inside the context once its time is up; 0 seconds set no limit.

    Only the main thread has a limit, and none has one on Windows, which lacks the timer.
    """
    if not seconds or not in_main_thread() or sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise_overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise_overdue(number: int, frame: FrameType | None) -> None:
    raise Overdue


@contextmanager
def worker_deaths_awaited() -> Iterator[None]:
    """Suspends PyTorch's handler of ended child processes.

    The handler raises an error in the middle of whatever runs, such as an optimizer step or a save.
    The data loader itself notices a dead data worker within five seconds of a wait. Enter the
    context after a data loader, which sets the handler. Other handlers stay.
    """
    if not in_main_thread() or sys.platform == "win32":
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    if str(getattr(before, "__module__", "")).startswith("torch."):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def in_main_thread() -> bool:
    """Returns whether this is the main thread, the only one with signal handlers."""
    return threading.current_thread() is threading.main_thread()


def end_process(number: int, message: str = "") -> NoReturn:
    """Ends the process as a signal does: KeyboardInterrupt for SIGINT, else code 128 + number."""
    raise KeyboardInterrupt(message) if number == signal.SIGINT else SystemExit(128 + number)


def end_run(number: int, message: str, accelerator: Accelerator) -> NoReturn:
    """Ends a process of a run like `end_process`; the main process prints the message."""
    message = f"{signal.Signals(number).name}: {message}"
    if accelerator.is_main_process:
        print(message, file=sys.stderr)
    end_process(number, message)


def outlive_signals(parent_ended: Event, _: int = 0) -> None:
    """Makes a data worker ignore stop signals until its parent has ended.

    The parent receives the signals too, and may need the worker for the step in progress.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        if parent_ended.is_set():
            os._exit(0)

    for number in STOP_SIGNALS:
        signal.signal(number, leave)
