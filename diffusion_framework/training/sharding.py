"""Models whose weights are spread over the processes (FSDP), and how they are put together for a checkpoint.

torch's own sharding rather than accelerate's, which leaves CPUs out and so could not be tested everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def shard_network(network: nn.Module, device: str) -> None:
    """Spread the weights over all processes; each block of an nn.ModuleList comes together when it is its turn."""
    from torch.distributed.device_mesh import init_device_mesh  # from torch 2.6 on, and slow to import
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    for module in reversed([*network.modules()]):
        if isinstance(module, nn.ModuleList):
            for block in module:
                if not isinstance(block, nn.ModuleList) and any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)  # also after sampling, which has no backward pass


@contextmanager
def without_gradient_sync(network: Any) -> Iterator[None]:
    """Within it, the processes' gradients add up, each its own."""
    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, put together if it is spread: then all processes must ask."""
    spread: Any = tensor
    return spread.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def spread_like(values: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """The values, spread as those of the same names in `own` are. Each process gives whole ones and takes its part."""
    from torch.distributed.tensor import distribute_tensor

    spread = dict(values)
    for name, like in own.items():
        if name in values and hasattr(like, "full_tensor"):
            value = values[name].to(like.device)
            spread[name] = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return spread
