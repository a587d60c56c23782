"""The training state: saved to a checkpoint and restored from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from ema_pytorch import EMA as MovingAverage
from torch import Tensor, nn

from ..storage.checkpoint import Checkpoint
from ..trainable import Batch, Trainable
from .distributed import check_all_used, full_tensor, no_sync, shard_like, shard_networks
from .environment import environment
from .starting import InitialWeights
from .stored import check_slots


class TrainingState:
    """The weights, their EMA, the optimizer and the number of optimizer steps taken.

    Args:
        model: Model to train, which is moved to the device.
        accelerator: Accelerator of the run, which names the device and wraps the model for several
            processes.
        average: Function that returns the EMA of a model (see `EMA.average`).
        adam: Options of AdamW.
        compile: Whether to compile the network.
        shard: Whether to shard the weights, their EMA and the optimizer state over all processes.

    Attributes:
        step: Number of optimizer steps taken.
        whole: Whether the state is that after a step, not within one.
        loss: Model to call for the loss, wrapped for several processes.
    """

    def __init__(
        self,
        model: Trainable,
        accelerator: Accelerator,
        *,
        average: Callable[[nn.Module], MovingAverage],
        adam: Mapping[str, Any],
        compile: bool,
        shard: bool,
    ) -> None:
        self.accelerator, self.step, self.whole = accelerator, 0, True
        self.model = model.to(accelerator.device).train()
        self.ema = average(self.model)
        self.sharded = shard and accelerator.num_processes > 1
        if self.sharded:
            for each in (self.model, self.averaged):
                shard_networks(each, each.networks, accelerator.device.type)
        if compile:
            for network in self.model.networks:
                network.compile()
        fused = accelerator.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(self.model.parameters(), fused=fused, **adam)
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self.loss = self.model if self.sharded else accelerator.prepare_model(self.model)
        wrapper = accelerator.ddp_handler
        finds_unused = wrapper is not None and wrapper.find_unused_parameters
        self._must_use_all = self.loss is not self.model and not finds_unused

    @property
    def averaged(self) -> Trainable:
        """The model with the averaged weights."""
        return self.ema.ema_model

    def no_sync(self) -> AbstractContextManager[None]:
        """Accumulates gradients without an all-reduce inside the context."""
        return no_sync(self.model.networks) if self.sharded else self.accelerator.no_sync(self.loss)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

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
        self.whole = True

    def is_finite(self) -> bool:
        """Returns whether all weights of this process are finite; waits for the device."""
        weights = (*self.model.parameters(), *self.averaged.parameters())
        return all(bool(torch.isfinite(weight).all()) for weight in weights)

    def size(self) -> int:
        """Returns the size of a checkpoint in bytes, approximately."""
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return 4 * weights  # weights, their EMA, and Adam's two moments

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns all tensors of a checkpoint by file and name, on the main process.

        All processes must call it, since sharded weights are gathered.
        """
        groups = {
            "model": self.model.state_dict(),
            "ema": self.averaged.state_dict(),
            "optimizer": self._optimizer_slots(),
        }
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
            "environment": environment(),
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
            checkpoint.load_weights(module, name, partial(self._shard, own=module.state_dict()))
        numbers, slots = checkpoint.state, checkpoint.tensors("optimizer")
        parameters = dict(self.model.named_parameters())
        check_slots(checkpoint, slots, parameters)
        moments = {
            key: parameters[key.rpartition(".")[0]] for key, value in slots.items() if value.ndim
        }
        self._load_optimizer(self._shard(slots, own=moments))
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

    def _names(self) -> list[str]:
        """Returns the names of the parameters in the optimizer's order."""
        return [name for name, _ in self.model.named_parameters()]

    def _optimizer_slots(self) -> dict[str, Tensor]:
        """Returns the optimizer's state as {"parameter.slot": value}."""
        names = self._names()
        state = self.optimizer.state_dict()["state"]
        return {
            f"{names[index]}.{slot}": value
            for index, slots in state.items()
            for slot, value in slots.items()
        }

    def _load_optimizer(self, slots: dict[str, Tensor]) -> None:
        """Restores the result of `_optimizer_slots`, but no options of the parameter groups."""
        index = {name: i for i, name in enumerate(self._names())}
        state: dict[int, dict[str, Any]] = {}
        for key, value in slots.items():
            name, _, slot = key.rpartition(".")
            state.setdefault(index[name], {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        with torch.no_grad():
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
