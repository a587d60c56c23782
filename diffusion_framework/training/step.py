"""The training step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..data.loading.loader import to_device
from ..process.noise import keyed_generator, mix
from .distributed import unused_weights_explained
from .seeds import Purpose
from .state import TrainingState
from .stopping import Guard


@dataclass(frozen=True)
class TrainingStep:
    """One optimizer step, from batches to updated weights.

    All randomness is a function of the seed, the step and the process.

    Args:
        accelerator: Accelerator of the run.
        seed: Seed of the run.
        progress: Function from the steps taken to the completed share of training.
        learning_rate: Function from the step, counted from 0, and the peak of a parameter group to
            its learning rate.
        accumulate: Number of batches of one step (gradient accumulation).
        flip: Whether to flip each image horizontally with probability 1/2.
        max_grad_norm: Gradient norm above which gradients are clipped.
    """

    accelerator: Accelerator
    seed: int
    progress: Callable[[int], float]
    learning_rate: Callable[[int, float], float]
    accumulate: int
    flip: bool
    max_grad_norm: float

    def __call__(
        self, state: TrainingState, batches: Iterator[Any], guard: Guard
    ) -> tuple[Tensor, Tensor]:
        """Takes the step without waiting for a GPU.

        Args:
            state: State that the step changes.
            batches: Batches of this process, as the dataset collates them.
            guard: Guard that refuses the step if it is not finite, or fails on another process.

        Returns:
            Loss and gradient norm over all processes, scalars on the device.

        Raises:
            ValueError: If weights take no part in the step, with several processes.
            FloatingPointError: If the loss or the gradient is not finite (see `Guard`).
            ProcessFailed: If another process has no batch or no loss.
            Interrupted: If a stop signal arrived before the step, or while it waits for a batch.
        """
        state.set_learning_rates(partial(self.learning_rate, state.step))
        total = torch.zeros((), device=self.accelerator.device)
        for number in range(self.accumulate):
            work = partial(self._next_batch, state, batches, number)
            data, condition = guard.together(work, stoppable=True)
            last = number == self.accumulate - 1
            with nullcontext() if last else state.no_sync():  # one all-reduce a step
                loss = guard.together(partial(self._loss, state, data, condition, number))
                self.accelerator.backward(loss)
            total += loss.detach()
        state.check_gradients()
        norm = state.clip_gradients(self.max_grad_norm)
        total = guard.inspect(state.step + 1, total, norm)
        state.advance(skip_step=guard.skip_step if guard.late else None)
        return total, norm

    def _next_batch(
        self, state: TrainingState, batches: Iterator[Any], number: int
    ) -> tuple[Tensor, dict[str, Any]]:
        """Returns batch `number` of a step, counted from 0, on the device, some samples flipped."""
        device, process = self.accelerator.device, self.accelerator.process_index
        data, condition = to_device(next(batches), device)
        if self.flip:
            key = (state.step, number)
            coins = keyed_generator(device, self.seed, Purpose.FLIP, *key, process)
            where = torch.rand(len(data), device=device, generator=coins) < 0.5
            data, flipped = state.model.flip(data, condition, where)
            condition = dict(flipped)
        return data, condition

    def _loss(
        self, state: TrainingState, data: Tensor, condition: dict[str, Any], number: int
    ) -> Tensor:
        """Returns the loss of batch `number`, divided by the number of batches of a step."""
        device, process = self.accelerator.device, self.accelerator.process_index
        key = (state.step, number)
        # One draw for all processes, so that no process waits for an extra forward pass.
        draw = random.Random(mix(self.seed, Purpose.SELF_CONDITION, *key)).random()
        # Dropout can only draw from the global generator of PyTorch.
        torch.manual_seed(mix(self.seed, Purpose.DROPOUT, *key, process))
        with self.accelerator.autocast(), unused_weights_explained():
            loss: Tensor = state.loss(
                data,
                generator=keyed_generator(device, self.seed, Purpose.NOISE, *key, process),
                self_condition_draw=draw,
                progress=self.progress(state.step),
                **condition,
            )
        return loss / self.accumulate
