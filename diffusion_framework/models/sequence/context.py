"""Functions and layers shared by the networks for action sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import TimeEmbedding


class TimeAndContext(nn.Module):
    """Embeds time and observations in one vector.

    Maps times [batch] and observations [batch, observation_steps, observation_dim] to [batch, dim].

    Args:
        dim_time: Number of sines and cosines of the time embedding together, even.
        dim: Width of the embedding.
        context_shape: (observation_steps, observation_dim). If one is 0, the network takes no
            observations.
    """

    def __init__(self, dim_time: int, dim: int, context_shape: tuple[int, int]) -> None:
        super().__init__()
        self.context_shape = context_shape
        context_size = context_shape[0] * context_shape[1]
        self.time = TimeEmbedding(dim_time, dim)
        self.context = None
        if context_size:
            self.context = nn.Sequential(
                nn.Linear(context_size, dim), nn.SiLU(), nn.Linear(dim, dim)
            )

    def forward(self, time: Tensor, context: Tensor | None) -> Tensor:
        check_context(context, self.context_shape)
        embedding = self.time(time)
        return (
            embedding
            if self.context is None or context is None
            else embedding + self.context(context.flatten(1))
        )


def check_context(context: Tensor | None, shape: tuple[int, int]) -> None:
    """Checks the shape of the observations that a network is given.

    Raises:
        ValueError: If context is not [batch, *shape], or not None where shape contains a 0.
    """
    if (0 in shape) if context is None else context.shape[1:] == shape:
        return
    got = "none" if context is None else [*context.shape]
    raise ValueError(
        f"Expected observations [batch, {shape[0]}, {shape[1]}], got {got}. "
        "Fix: build the network with matching observation_steps and observation_dim."
    )


def concatenate_estimate(x: Tensor, self_cond: Tensor | None) -> Tensor:
    """Concatenates x [batch, horizon, action_dim] and the previous estimate of the clean actions.

    Returns [batch, horizon, 2 * action_dim]; an estimate of None means zeros.
    """
    return torch.cat([x, torch.zeros_like(x) if self_cond is None else self_cond], dim=2)
