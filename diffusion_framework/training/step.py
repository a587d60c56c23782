"""One optimizer step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..data.loading.loader import to_device
from ..process.noise import keyed_generator, mix
from .seeds import Purpose
from .state import TrainingState
from .stopping import Guard


@dataclass(frozen=True)
class TrainingStep:
    """Takes one step; called with the state it changes and an iterator of batches.

    Args:
        accelerator: Of the run.
        learning_rate: Learning rate of each step, by its number from 0.
        seed: Of the run.
        accumulate: Batches of one step.
        flip: Whether every other image is mirrored.
        max_grad_norm: Gradients are scaled down to this norm.
    """

    accelerator: Accelerator
    learning_rate: Callable[[int], float]
    seed: int
    accumulate: int
    flip: bool
    max_grad_norm: float

    def __call__(self, state: TrainingState, batches: Iterator[Any], guard: Guard) -> tuple[Tensor, Tensor]:
        """The step's loss and gradient norm, on the device. Waits for nothing on a GPU.

        Args:
            state: What the step changes.
            batches: Gives it its batches.
            guard: Asked before the weights are touched.

        Raises:
            FloatingPointError: see `Guard`.
        """
        state.learning_rate = self.learning_rate(state.step)
        total = torch.zeros((), device=self.accelerator.device)
        for micro in range(self.accumulate):
            last = micro == self.accumulate - 1
            with nullcontext() if last else state.no_sync():  # the processes meet once a step
                loss = self._loss(state, next(batches), micro) / self.accumulate
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = state.clip_gradients(self.max_grad_norm)
        guard.inspect(state.step + 1, total, norm)
        state.advance(skip_step=guard.skip_step if guard.late else None)
        return total, norm

    def _loss(self, state: TrainingState, batch: Any, micro: int) -> Tensor:
        key = (state.step, micro)
        # One coin for all processes, so that none waits for another's extra pass.
        coin = random.Random(mix(self.seed, Purpose.SELF_CONDITION, *key)).random()
        # dropout can only draw from torch's own generator
        torch.manual_seed(mix(self.seed, Purpose.DROPOUT, *key, self.accelerator.process_index))
        flip = self._generator(Purpose.FLIP, *key) if self.flip else None
        images, condition = to_device(batch, self.accelerator.device, flip)
        with self.accelerator.autocast():
            return state.model(
                images,
                generator=self._generator(Purpose.NOISE, *key),
                self_condition_draw=coin,
                **condition,
            )

    def _generator(self, *keys: int) -> torch.Generator:
        return keyed_generator(self.accelerator.device, self.seed, *keys, self.accelerator.process_index)
