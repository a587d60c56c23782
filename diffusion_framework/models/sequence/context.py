"""What the networks of action sequences share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import TimeEmbedding


class TimeAndContext(nn.Module):
    """Time, and the observations if there are any, as one vector: [batch], [batch, steps, numbers] -> [batch, dim].

    Args:
        dim_time: Number of sines and cosines of time; even.
        dim: Width of the result.
        context_shape: (steps, numbers of a step) of the observations; nothing of them is expected if one is 0.
    """

    def __init__(self, dim_time: int, dim: int, context_shape: tuple[int, int]) -> None:
        super().__init__()
        self.context_shape = context_shape
        told = context_shape[0] * context_shape[1]
        self.time = TimeEmbedding(dim_time, dim)
        self.context = nn.Sequential(nn.Linear(told, dim), nn.SiLU(), nn.Linear(dim, dim)) if told else None

    def forward(self, time: Tensor, context: Tensor | None) -> Tensor:
        check_context(context, self.context_shape)
        embedding = self.time(time)
        return embedding if self.context is None or context is None else embedding + self.context(context.flatten(1))


def check_context(context: Tensor | None, shape: tuple[int, int]) -> None:
    """Raise ValueError unless the context is [batch, *shape], or None where the shape holds nothing."""
    if (0 in shape) if context is None else context.shape[1:] == shape:
        return
    got = "none" if context is None else [*context.shape]
    raise ValueError(f"the network wants observations [batch, {shape[0]}, {shape[1]}]; got {got}")


def with_estimate(x: Tensor, self_cond: Tensor | None) -> Tensor:
    """x [batch, steps, numbers] and the last estimate of the clean data (zeros if None) side by side."""
    return torch.cat([x, torch.zeros_like(x) if self_cond is None else self_cond], dim=2)
