"""Refuses steps whose loss or gradient is not finite, without making a GPU wait."""

from __future__ import annotations

import time
from collections import deque

import torch
from accelerate import Accelerator
from torch import Tensor

from .signals import NotedSignals
from .together import Together

_OVERFLOWS = 50  # in a row; the gradient scale of fp16, halved each time, is then out of range


class Guard:
    """Refuses steps that are not finite, on all processes together.

    Each step shares its flag by an all-reduce. On a GPU the result is read one step late, so that
    the device never waits. Until then `skip_step` acts on the device, so that neither a bad step
    nor the next one changes the weights.

    Args:
        accelerator: Accelerator of the run.
        signals: Signals that this process receives.
        late: Whether to read results one step late; None does so on GPUs only.
        timeout: Seconds to wait for another process.

    Attributes:
        together: Runs work of all processes (see `Together`).
        skip_step: Scalar on the device, above 0 from the first bad step on; the `found_inf` of
            PyTorch's fused optimizers.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        signals: NotedSignals,
        late: bool | None = None,
        timeout: float = 900,
    ) -> None:
        self.accelerator = accelerator
        self.together = Together(accelerator, signals, timeout)
        self.late = accelerator.device.type == "cuda" if late is None else late
        self.patience = _OVERFLOWS if accelerator.scaler is not None else 0
        self.overflows = torch.zeros((), device=accelerator.device)
        self.skip_step = torch.zeros((), device=accelerator.device)
        self._results: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def inspect(self, step: int, loss: Tensor, norm: Tensor) -> Tensor:
        """Checks on all processes whether a step may be taken.

        Args:
            step: Number of the step, from 1.
            loss: Loss of this process, a scalar on the device.
            norm: Gradient norm over all processes, a scalar on the device.

        Returns:
            Mean loss of all processes, a scalar on the device.

        Raises:
            FloatingPointError: If this step is not finite, or with late results the previous one.
        """
        self.overflows = (self.overflows + 1) * ~torch.isfinite(norm)
        bad = ~torch.isfinite(loss) | (self.overflows > self.patience)
        both = torch.stack([bad.to(loss.dtype), loss])
        bad, total = self.accelerator.reduce(both, reduction="sum").unbind()
        self.skip_step = torch.maximum(self.skip_step, bad)
        event = None
        if bad.is_cuda:
            bad = bad.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._results.append((step, bad, event))
        self._read(leave=1 if self.late else 0)
        return total / self.accelerator.num_processes

    def settle(self) -> None:
        """Waits for all results, before anything is written; raises like `inspect`."""
        self._read(leave=0)

    def settles_within(self, seconds: float) -> bool:
        """Returns whether all results arrive in time, as they may not after a process has died."""
        until = time.monotonic() + seconds
        for _, _, event in self._results:
            while event is not None and not event.query():
                if time.monotonic() > until:
                    return False
                time.sleep(0.01)
        return True

    def _read(self, leave: int) -> None:
        while len(self._results) > leave:
            step, bad, event = self._results.popleft()
            if event is not None:
                event.synchronize()
            if bad:
                self.together.raised = FloatingPointError(
                    f"Expected finite numbers, got a loss or gradient of step {step} that is not "
                    "finite; the step was not taken. Fix: lower train_lr, or use bf16 instead of "
                    "fp16, and resume from the last checkpoint."
                )
                raise self.together.raised
