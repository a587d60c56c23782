"""Runs tasks on the main process, and shards weights over all processes (FSDP).

Sharding uses PyTorch's `fully_shard`. The FSDP of accelerate does not run on CPUs, where the tests
run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

T = TypeVar("T")


class ProcessFailed(OSError):
    """Raised where another process of the run has failed or is lost.

    Args:
        message: Description of the failure.
        said: Whether the other process raises the error itself, so that a script need not print it.
    """

    def __init__(self, message: str, said: bool = False) -> None:
        self.said = said
        super().__init__(message)


def on_main_process(accelerator: Accelerator, task: Callable[[], T]) -> T | None:
    """Runs a task on the main process while the others wait.

    Returns:
        The task's result on the main process, None on the others.

    Raises:
        Exception: If the task raises it; the other processes raise an OSError with its message.
    """
    result, error = None, None
    if accelerator.is_main_process:
        try:
            result = task()
        except Exception as caught:
            error = caught
    (message,) = broadcast_object_list(
        [error and f"{type(error).__name__} on the main process: {error}"]
    )
    if error is not None:
        raise error
    if message is not None:
        raise ProcessFailed(message, said=True)
    return result


@contextmanager
def unused_weights_explained() -> Iterator[None]:
    """Turns PyTorch's error about weights without a gradient into one that names the option."""
    try:
        yield
    except RuntimeError as error:
        if "finished reduction in the prior iteration" not in str(error):
            raise
        raise _unused_weights("some") from error


def check_all_used(model: nn.Module) -> None:
    """Raises ValueError if a trained weight has no gradient after the backward pass."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if unused := [name for name, p in trained.items() if p.grad is None]:
        raise _unused_weights(", ".join(unused[:3]) + (", ..." if len(unused) > 3 else ""))


def _unused_weights(which: str) -> ValueError:
    return ValueError(
        "Expected all trained weights to take part in each step of several processes, got no "
        f"gradient of {which}. Fix: set compute.find_unused_parameters to true "
        "(--trainer.compute.find_unused_parameters true), or remove these weights."
    )


def shard_networks(model: nn.Module, networks: Collection[nn.Module], device: str) -> None:
    """Shards the weights of the networks of a model over all processes.

    Each block of an nn.ModuleList is a separate unit, gathered when it is called.

    Raises:
        ValueError: If the model trains weights outside of the networks.
    """
    from torch.distributed.device_mesh import init_device_mesh  # slow to import
    from torch.distributed.fsdp import fully_shard  # from torch 2.6 on

    inside = {id(p) for network in networks for p in network.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in inside:
            raise ValueError(
                f"compute.shard: expected all trained weights in the network, got {name} outside "
                "of it. Fix: set compute.shard to false."
            )
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    # Resharding after the forward pass also serves sampling, which has no backward pass.
    shard = partial(fully_shard, mesh=mesh, reshard_after_forward=True)
    for network in networks:
        for module in reversed([*network.modules()]):
            if isinstance(module, nn.ModuleList):
                for block in module:
                    if not isinstance(block, nn.ModuleList) and any(
                        True for _ in block.parameters()
                    ):
                        shard(block)
        shard(network)


@contextmanager
def no_sync(networks: Collection[Any]) -> Iterator[None]:
    """Accumulates gradients without an all-reduce inside the context."""
    for network in networks:
        network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        for network in networks:
            network.set_requires_gradient_sync(True)


def full_tensor(tensor: Tensor) -> Tensor:
    """Returns the full tensor; a sharded one is gathered, so that all processes must call this."""
    maybe_sharded: Any = tensor
    return maybe_sharded.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard_like(values: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the values, each sharded like the tensor of the same name in `own`.

    Every process passes full tensors and keeps its own shard.
    """
    from torch.distributed.tensor import distribute_tensor

    sharded = dict(values)
    for name, like in own.items():
        if name in values and hasattr(like, "full_tensor"):
            value = values[name].to(like.device)
            sharded[name] = distribute_tensor(
                value, like.device_mesh, like.placements, src_data_rank=None
            )
    return sharded
