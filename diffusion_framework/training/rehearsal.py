"""Measures what a training step takes, without changing or writing anything."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ..data.loading.loader import to_device
from ..data.loading.one_pass import one_pass
from ..parts.counting import counted
from .optimizers import parameters_of
from .summary import aligned
from .trainer import Trainer


def rehearsed(trainer: Trainer, step_taken: int = 0) -> str:
    """Returns the memory, the operations and the time of a training step in aligned lines.

    It computes the loss and the gradient of one batch of this process, twice, and takes a step with
    a copy of the optimizer. The weights stay unchanged. Statistics that the model lacks are fitted,
    which reads all data.

    Args:
        trainer: Trainer that has taken no step.
        step_taken: Step of the checkpoint that the run resumes from.
    """
    accelerator, accumulate = trainer.accelerator, trainer.take_step.accumulate
    trainer.model.fit(one_pass(trainer.dataset, trainer.batch_size, accelerator.device))
    count = trainer.batch_size // accelerator.num_processes
    data, condition = to_device(trainer.dataset.take(np.arange(count)), accelerator.device)
    kept: dict[int, int] = {}  # bytes of each storage that the backward pass needs

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        with accelerator.autocast():
            loss = trainer.model(data, self_condition_draw=0.0, progress=0.0, **condition)
        loss.backward()

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda one: one):
        step()
    began = time.perf_counter()
    step()
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) * accumulate
    parts = _memory(trainer, kept)
    trainer.model.zero_grad()
    flops = counter.get_total_flops() * accumulate * accelerator.num_processes
    told = trainer.budget
    count = told.steps if told.known else round(60 * (told.minutes or 0) / seconds)
    left = timedelta(seconds=round(seconds * (count - step_taken)))
    shown = ", ".join(f"{name} {_bytes(number)}" for name, number in parts.items())
    return aligned(
        {
            "memory": f"{_bytes(sum(parts.values()))} for a process: {shown}",
            "a step": f"{flops:.3g} floating-point operations, {seconds:.3g} s",
            "time": f"about {left} for {counted(count - step_taken, 'step')} alone",
        }
    )


def _memory(trainer: Trainer, kept: Mapping[int, int]) -> dict[str, int]:
    """Returns the bytes that training takes, by name.

    Args:
        trainer: Trainer whose weights have gradients.
        kept: Bytes of each storage that the backward pass needs, by address.
    """
    weights = {p.untyped_storage().data_ptr(): p.nbytes for p in trainer.model.parameters()}
    size = sum(weights.values())
    averages = 1 + len(trainer.state.profiles.profiles)
    parts = {"weights": size, "gradients": size, "EMA": averages * size}
    parts["optimizer"] = _optimizer_bytes(trainer)
    parts["activations"] = sum(size for place, size in kept.items() if place not in weights)
    return parts


def _optimizer_bytes(trainer: Trainer) -> int:
    """Returns the size of the optimizer's state after a step, which a copy of it takes."""
    twin = copy.deepcopy(trainer.state.slots.optimizer)
    ours = parameters_of(trainer.state.slots.optimizer)
    for mine, copied in zip(ours, parameters_of(twin), strict=True):
        copied.grad = mine.grad
    twin.step()
    values = [value for slots in twin.state.values() for value in slots.values()]
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
