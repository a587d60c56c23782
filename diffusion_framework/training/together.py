"""Runs work on all processes of a run, which go on together or fail together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator

from .distributed import ProcessFailed
from .signals import Interrupted, NotedSignals

T = TypeVar("T")


class Together:
    """Runs work that has no collective, and tells all processes of its failure.

    An error or a stop signal on one process then ends the work on all of them at the same place, so
    that none waits for a process that has left. The processes meet on the CPU, and no GPU waits.

    Args:
        accelerator: Accelerator of the run.
        signals: Signals that this process receives.
        timeout: Seconds to wait for another process.

    Attributes:
        raised: Last error that all processes raised, or have heard of, at the same place.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        signals: NotedSignals,
        timeout: float = 900,
    ) -> None:
        self.world, self.signals = accelerator.num_processes, signals
        self.raised: BaseException | None = None
        self._group: Any = None  # the default group
        if self.world > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))

    def __call__(self, work: Callable[[], T], *, stoppable: bool = False) -> T:
        """Runs work on each process, and returns once all processes have done theirs.

        Args:
            work: Function without collectives.
            stoppable: Whether a stop signal interrupts the work, or keeps it from starting.

        Returns:
            The result of this process.

        Raises:
            Exception: If the work of this process raises it.
            ProcessFailed: If the work of another process fails.
            Interrupted: If a stop signal reaches any process, and the work is stoppable.
        """
        failure: Exception | Interrupted | None = None
        try:
            with self.signals.interruptible() if stoppable else nullcontext():
                result = work()
        except (Exception, Interrupted) as error:
            failure = error
        failure = self._meet(failure)
        if failure is not None:
            self.raised = failure
            raise failure
        return result

    def agreed(self, error: BaseException) -> bool:
        """Returns whether all processes have left their work for this error, and can meet again."""
        return self.world == 1 or error is self.raised

    def all(self, value: bool) -> bool:
        """Returns whether a value is true on all processes."""
        if self.world == 1:
            return value
        flag = torch.tensor(value, dtype=torch.int)
        dist.all_reduce(flag, dist.ReduceOp.MIN, group=self._group)
        return bool(flag)

    def any(self, value: bool) -> bool:
        """Returns whether a value is true on any process."""
        return not self.all(not value)

    def _meet(self, failure: Exception | Interrupted | None) -> Exception | Interrupted | None:
        """Returns what this process has to raise, once all processes have told their failures."""
        if self.world == 1:
            return failure
        stopped = failure.number if isinstance(failure, Interrupted) else 0
        failed = failure is not None and not stopped
        flags = torch.tensor([failed, stopped], dtype=torch.int)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._group)
        any_failed, number = flags.tolist()
        if not any_failed:
            return Interrupted(number) if number else None
        errors: list[Any] = [None] * self.world
        own = f"{type(failure).__name__}: {failure}" if failed else None
        dist.all_gather_object(errors, own, group=self._group)
        if failed:
            return failure
        message = next(f"rank {rank}: {error}" for rank, error in enumerate(errors) if error)
        return ProcessFailed(message, said=True)
