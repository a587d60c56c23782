"""Processes that a launcher starts: torchrun, or accelerate launch."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch.distributed as dist
from accelerate import Accelerator, PartialState

from .checks import expect
from .distributed import ProcessFailed

T = TypeVar("T")
_ANSWER = timedelta(seconds=5)  # time for the launcher's store to answer
_PATIENCE = 3.0  # seconds in which the processes that still run must report
_GRACE = 60.0  # seconds between SIGTERM and SIGKILL after the end of the launcher


def check_launch(accelerator: Accelerator | PartialState) -> None:
    """Checks that the processes of a launcher form one run, and ends this one with the launcher.

    Raises:
        ValueError: If accelerate made a run of its own of each process.
    """
    world, single = world_size(), accelerator.num_processes == 1
    fix = "without a GPU for each process, set the environment variable ACCELERATE_USE_CPU=true"
    expect(world == 1 or not single, f"one run of {world} processes", f"{world} single runs", fix)
    if world > 1:
        own, rank = f"process {os.getpid()} on {socket.gethostname()}", accelerator.process_index
        _ask(lambda store: store.set(_key(f"process/{rank}"), own))
        if sys.platform != "win32":
            threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def world_size() -> int:
    """Returns the number of processes that the launcher started."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() else 1


def _follow(launcher: int) -> None:
    """Ends this process once the launcher has ended; Windows does not tell, so nothing is done."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def is_first_to_fail() -> bool:
    """Returns whether no other process of the run has called this; it then prints its error."""
    earlier = _ask(lambda store: store.add(_key("failed"), 1) - 1) if world_size() > 1 else 0
    return not earlier  # also if the store does not answer


def explained(error: RuntimeError, accelerator: Accelerator) -> Exception:
    """Returns an error that names lost processes if an operation of several processes failed."""
    text = str(error)
    failed = isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text
    if accelerator.num_processes == 1 or not failed:
        return error
    rank, world = accelerator.process_index, accelerator.num_processes
    # Without an answer, the store is lost with the launcher, or with the process of rank 0.
    lost = ", ".join(_ask(partial(_lost, rank, world)) or ["rank 0"])
    return ProcessFailed(
        f"Expected all {accelerator.num_processes} processes to take part, got no answer from "
        f"{lost}: it ended, was stopped, or took longer than compute.timeout. "
        "Fix: look for the cause there, such as too little memory, and resume."
    )


def _lost(rank: int, world: int, store: dist.TCPStore) -> list[str]:
    """Returns the processes that do not report that they have lost another one."""
    store.set(_key(f"here/{rank}"), "")
    until = time.monotonic() + _PATIENCE
    while True:
        lost = [other for other in range(world) if not store.check([_key(f"here/{other}")])]
        if not lost or time.monotonic() > until:
            break
        time.sleep(0.1)
    keys = {other: _key(f"process/{other}") for other in lost}
    found = [
        f"rank {other} ({store.get(key).decode()})" if store.check([key]) else f"rank {other}"
        for other, key in keys.items()
    ]
    return found or ["one of them"]


def _ask(task: Callable[[dist.TCPStore], T]) -> T | None:
    """Returns the result of a task with the launcher's store, or None if it does not answer.

    A thread does the task, since a store whose process was stopped keeps it waiting.
    """
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not address or not port.isdecimal():
        return None
    results: list[T] = []

    def work() -> None:
        with suppress(RuntimeError, OSError):  # such as dist.DistNetworkError
            store = dist.TCPStore(address, int(port), is_master=False, timeout=_ANSWER)
            results.append(task(store))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_ANSWER.total_seconds() + _PATIENCE)
    return results[0] if results else None


def _key(name: str) -> str:
    """Returns a key of this start of the processes, which torchrun may start again."""
    return f"diffusion_framework/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{name}"
