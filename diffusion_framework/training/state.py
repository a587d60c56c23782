"""The training state: saved to a checkpoint and restored from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from typing import Any

import torch
from accelerate import Accelerator
from ema_pytorch import EMA as MovingAverage
from torch import Tensor, nn
from torch.optim import Optimizer

from ..storage.checkpoint import Checkpoint
from ..trainable import Batch, Trainable
from .distributed import check_all_used, full_tensor, no_sync, shard_like, shard_networks
from .environment import environment
from .optimizer_state import OptimizerState
from .optimizers import skips_steps
from .profiles import TrackedProfiles
from .starting import InitialWeights
from .stored import check_slots


class TrainingState:
    """The weights, their EMA, the optimizer and the number of optimizer steps taken.

    Args:
        model: Model to train, which is moved to the device.
        accelerator: Accelerator of the run, which names the device and wraps the model for several
            processes.
        average: Function that returns the EMA of a model (see `EMA.average`).
        track: Function that returns the averages of a model with profiles (see `EMA.track`).
        optimizer: Function that returns the optimizer of a model (see `ChosenOptimizer`).
        compile: Whether to compile the network.
        shard: Whether to shard the weights, their EMA and the optimizer state over all processes.

    Attributes:
        step: Number of optimizer steps taken.
        whole: Whether the state is that after a step, not within one.
        peaks: Learning rate of each parameter group before any schedule.
        skips_steps: Whether the optimizer can leave out a step that is not finite.
        loss: Model to call for the loss, wrapped for several processes.
    """

    def __init__(
        self,
        model: Trainable,
        accelerator: Accelerator,
        *,
        average: Callable[[nn.Module], MovingAverage],
        track: Callable[[Trainable], TrackedProfiles],
        optimizer: Callable[[nn.Module], Optimizer],
        compile: bool,
        shard: bool,
    ) -> None:
        self.accelerator, self.step, self.whole = accelerator, 0, True
        self.model = model.to(accelerator.device).train()
        self.ema, self.profiles = average(self.model), track(self.model)
        self.sharded = shard and accelerator.num_processes > 1
        if self.sharded:
            for each in (self.model, self.averaged):
                shard_networks(each, each.networks, accelerator.device.type)
        if compile:
            for network in self.model.networks:
                network.compile()
        made = optimizer(self.model)
        self.slots, self.skips_steps = OptimizerState(made, self.model), skips_steps(made)
        self.peaks = [float(group["lr"]) for group in made.param_groups]
        self.optimizer = accelerator.prepare_optimizer(made)
        self.loss = self.model if self.sharded else accelerator.prepare_model(self.model)
        wrapper = accelerator.ddp_handler
        finds_unused = wrapper is not None and wrapper.find_unused_parameters
        self._must_use_all = self.loss is not self.model and not finds_unused
        self._must_check_slots = True

    @property
    def averaged(self) -> Trainable:
        """The model with the averaged weights."""
        return self.ema.ema_model

    def no_sync(self) -> AbstractContextManager[None]:
        """Accumulates gradients without an all-reduce inside the context."""
        return no_sync(self.model.networks) if self.sharded else self.accelerator.no_sync(self.loss)

    def set_learning_rates(self, rate: Callable[[float], float]) -> None:
        """Sets the learning rate of each parameter group to a function of its peak."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = rate(peak)

    def check_gradients(self) -> None:
        """Raises ValueError if a weight took no part in the first step, of several processes."""
        if self._must_use_all:
            check_all_used(self.model)
            self._must_use_all = False

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Clips the gradients to a norm; returns the norm before clipping, over all processes."""
        return full_tensor(self.accelerator.clip_grad_norm_(self.loss.parameters(), max_norm))

    def advance(self, skip_step: Tensor | None) -> None:
        """Takes an optimizer step and updates the EMA.

        Args:
            skip_step: Scalar on the device; above 0, the weights stay unchanged. With fp16 the
                gradient scaler decides instead.
        """
        self.whole = False
        if skip_step is not None and self.accelerator.scaler is None:
            self.optimizer.optimizer.found_inf, self.optimizer.optimizer.grad_scale = (
                skip_step,
                None,
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        self.step += 1
        self.profiles.update(self.step)
        self.whole = True
        if self._must_check_slots:
            self.slots.check()
            self._must_check_slots = False

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """Takes back all steps that are taken inside the context. Before them, none was taken."""
        own = [*self.model.parameters(), *self.model.buffers(), *self.ema.state_dict().values()]
        scaler, made = self.accelerator.scaler, self.slots.optimizer
        with torch.no_grad():
            kept = [tensor.clone() for tensor in own]
        scale, slots = None if scaler is None else scaler.state_dict(), deepcopy(made.state_dict())
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(own, kept, strict=True):
                    tensor.copy_(value)
            made.load_state_dict(slots)
            made.zero_grad()
            self.profiles.reset()
            if scaler is not None:
                scaler.load_state_dict(scale)
            self.profiles.reset()
            self.step, self.whole = 0, True

    def is_finite(self) -> bool:
        """Returns whether all weights of this process are finite; waits for the device."""
        weights = (*self.model.parameters(), *self.averaged.parameters())
        return all(bool(torch.isfinite(weight).all()) for weight in weights)

    def size(self) -> int:
        """Returns the size of a checkpoint in bytes, approximately."""
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        others = len(self.profiles.profiles)
        return (4 + others) * weights  # weights, their EMA and averages, Adam's two moments

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns all tensors of a checkpoint by file and name, on the main process.

        All processes must call it, since sharded weights are gathered.
        """
        groups = {
            "model": self.model.state_dict(),
            "ema": self.averaged.state_dict(),
            "optimizer": self.slots.tensors(),
        }
        return self.gathered(groups | self.profiles.tensors())

    def gathered(self, groups: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Returns whole tensors by file and name, on the main process; all must call it."""
        if not self.sharded:
            return groups
        gathered: dict[str, dict[str, Tensor]] = {name: {} for name in groups}
        for name, group in groups.items():
            for key, value in group.items():  # one by one, as all might not fit on the device
                value = full_tensor(value)
                if self.accelerator.is_main_process:
                    gathered[name][key] = value.cpu()
        return gathered

    def numbers(self) -> dict[str, Any]:
        """Returns the data of a checkpoint besides the tensors, as plain data."""
        scaler = self.accelerator.scaler
        return {
            "ema_step": int(self.ema.step),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "optimizer": self.slots.numbers(),
            "environment": environment(),
            "profiles": self.profiles.numbers(),
        }

    def begin(
        self,
        checkpoint: Checkpoint | None,
        batches: Iterable[Batch],
        weights: InitialWeights | None = None,
    ) -> None:
        """Restores a checkpoint, or begins a new run.

        A new run fits the model's statistics to the training data. Its EMA starts from the weights.

        Args:
            checkpoint: Checkpoint to resume from, or None for a new run.
            batches: All training data once; it is read only if the model has unknown statistics.
            weights: Weights that a new run starts with; None for those of the model.

        Raises:
            ValueError: If the checkpoint does not fit the model, or differs between processes.
        """
        if checkpoint is not None:
            self.load(checkpoint)
            return
        self.model.fit(batches)
        with torch.no_grad():
            for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                mine.copy_(theirs)
        if weights is not None:
            for model in (self.model, self.averaged):
                weights.load_into(model, self._shard)

    def load(self, checkpoint: Checkpoint) -> None:
        """Restores the state that `tensors` and `numbers` described; raises like `begin`."""
        for name, module in (("model", self.model), ("ema", self.averaged)):
            tensors = self._shard(checkpoint.tensors(name), own=module.state_dict())
            checkpoint.load_into(module, tensors)
        numbers, slots = checkpoint.state, checkpoint.tensors("optimizer")
        parameters = dict(self.model.named_parameters())
        check_slots(checkpoint, slots, parameters, self.slots)
        moments = {
            key: parameters[key.rpartition(".")[0]]
            for key, value in slots.items()
            if value.shape == parameters[key.rpartition(".")[0]].shape
        }
        self.slots.load(self._shard(slots, own=moments), numbers.get("optimizer", {}))
        self.profiles.load(checkpoint, self._shard)
        self.ema.step.fill_(numbers["ema_step"])
        self.ema.initted.fill_(True)
        if numbers["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(numbers["scaler"])
        self.step = checkpoint.step
        steps = self.accelerator.gather(
            torch.tensor([self.step], device=self.accelerator.device)
        ).tolist()
        if len(set(steps)) > 1:
            raise ValueError(
                f"Expected the same checkpoint on all processes, got the steps {steps}. "
                "Fix: give all processes the same results_folder."
            )

    def _shard(self, values: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
        return shard_like(values, own) if self.sharded else values
