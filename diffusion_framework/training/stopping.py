"""Ends a run before its last step: at a number that is not finite, a signal, or a time limit.

Signals are recorded on arrival and handled between two steps. All processes decide together at
every step, without making a GPU wait.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections import deque
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor

# Batch systems can send SIGUSR1 some time before they end a job (Slurm: --signal=USR1@120).
STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]
_OVERFLOWS = 50  # in a row; the gradient scale of fp16, halved each time, is then out of range
_ECHO = 1.0  # seconds within which a launcher may repeat a signal


class NotedSignals:
    """A context that records the first stop signal; a second one ends the process at once.

    A repetition within a second is ignored. Outside the main thread, where Python does not allow
    signal handlers, no signal is recorded.

    Attributes:
        received: Number of the signal, or 0.
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


class Guard:
    """Refuses steps that are not finite, and tells all processes when to stop.

    Each step shares its flags by an all-reduce. On a GPU the result is read one step late, so that
    the device never waits. Until then `skip_step` acts on the device, so that neither a bad step
    nor the next one changes the weights.

    Args:
        accelerator: Accelerator of the run.
        signals: Signals that this process receives.
        late: Whether to read results one step late; None does so on GPUs only.
        minutes: Time limit in minutes, counted from now; None for none.

    Attributes:
        skip_step: Scalar on the device, above 0 from the first bad step on; the `found_inf` of
            PyTorch's fused optimizers.
        signal: Number of a signal that any process received, or 0, by the results read so far.
        time_is_up: Whether the time of any process is up, by the results read so far.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        signals: NotedSignals,
        late: bool | None = None,
        minutes: float | None = None,
    ) -> None:
        self.accelerator, self.signals = accelerator, signals
        self.late = accelerator.device.type == "cuda" if late is None else late
        self.patience = _OVERFLOWS if accelerator.scaler is not None else 0
        self.overflows = torch.zeros((), device=accelerator.device)
        self.skip_step = torch.zeros((), device=accelerator.device)
        self.go_on = torch.zeros(len(STOP_SIGNALS) + 1, device=accelerator.device)
        self.signal, self.time_is_up = 0, False
        self.deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._results: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    @property
    def stop(self) -> bool:
        """Whether the run ends after the last step taken."""
        return bool(self.signal) or self.time_is_up

    def inspect(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Checks on all processes whether a step may be taken.

        Args:
            step: Number of the step, from 1.
            loss: Loss of this process, a scalar on the device.
            norm: Gradient norm over all processes, a scalar on the device.

        Raises:
            FloatingPointError: If this step is not finite, or with late results the previous one.
        """
        self.overflows = (self.overflows + 1) * ~torch.isfinite(norm)
        bad = ~torch.isfinite(loss) | (self.overflows > self.patience)
        stops, received, over = self.go_on, self.signals.received, time.monotonic() > self.deadline
        if received or over:
            flags = [*(received == number for number in STOP_SIGNALS), over]
            stops = torch.tensor(flags, dtype=torch.float32, device=loss.device)
        result = self.accelerator.reduce(torch.cat([bad.float()[None], stops]), reduction="sum")
        self.skip_step = torch.maximum(self.skip_step, result[0])
        event = None
        if result.is_cuda:
            result = result.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._results.append((step, result, event))
        self._read(leave=1 if self.late else 0)

    def settle(self) -> None:
        """Waits for all results, before anything is written; raises like `inspect`."""
        self._read(leave=0)

    def _read(self, leave: int) -> None:
        while len(self._results) > leave:
            step, result, event = self._results.popleft()
            if event is not None:
                event.synchronize()
            bad, *counts, over = result.tolist()
            if bad:
                raise FloatingPointError(
                    f"Expected finite numbers, got a loss or gradient of step {step} that is not "
                    "finite; the step was not taken. Fix: lower train_lr, or use bf16 instead of "
                    "fp16, and resume from the last checkpoint."
                )
            received = [number for number, count in zip(STOP_SIGNALS, counts, strict=True) if count]
            self.signal = self.signal or max(received, default=0)
            self.time_is_up = self.time_is_up or over > 0
