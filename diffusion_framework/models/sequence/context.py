"""Functions and layers shared by the networks for action sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..inputs import check_shape
from ..layers import TimeEmbedding


@dataclass(frozen=True)
class SequenceInputs:
    """Shapes that a network of action sequences takes.

    Args:
        sample_shape: (horizon, action_dim).
        context_shape: (observation_steps, observation_dim). If one is 0, the network takes no
            observations.
        multiple: Number of which any other horizon may be a multiple; None for one horizon alone.
    """

    sample_shape: tuple[int, int]
    context_shape: tuple[int, int]
    multiple: int | None = None

    def check(
        self,
        x: Tensor,
        time: Tensor,
        self_cond: Tensor | None,
        context: Tensor | None,
        second_time: Tensor | None,
    ) -> None:
        """Raises ValueError for an input of another shape."""
        horizon, action_dim = self.sample_shape
        if self.multiple is not None and x.ndim == 3 and x.shape[1]:
            horizon = horizon if x.shape[1] % self.multiple else x.shape[1]
        batch = x.shape[0] if x.ndim else 0
        check_shape("x", x, (batch, horizon, action_dim))
        check_shape("time", time, (batch,))
        check_shape("second_time", second_time, (batch,))
        check_shape("self_cond", self_cond, tuple(x.shape))
        steps, dim = self.context_shape
        wanted = None if 0 in self.context_shape else (batch, steps, dim)
        if (None if context is None else tuple(context.shape)) != wanted:
            got = "none" if context is None else [*context.shape]
            raise ValueError(
                f"Expected observations [batch, {steps}, {dim}], got {got}. "
                "Fix: build the network with matching observation_steps and observation_dim."
            )


class TimeAndContext(nn.Module):
    """Embeds times and observations in one vector.

    Maps times [batch], observations [batch, observation_steps, observation_dim] and second times
    [batch] to [batch, dim].

    Args:
        dim_time: Number of sines and cosines of the time embedding together, even.
        dim: Width of the embedding.
        context_shape: (observation_steps, observation_dim). If one is 0, the network takes no
            observations.
        second_time: Whether there is a second time.
    """

    def __init__(
        self, dim_time: int, dim: int, context_shape: tuple[int, int], second_time: bool = False
    ) -> None:
        super().__init__()
        context_size = context_shape[0] * context_shape[1]
        self.time = TimeEmbedding(dim_time, dim, second=second_time)
        self.context = None
        if context_size:
            self.context = nn.Sequential(
                nn.Linear(context_size, dim), nn.SiLU(), nn.Linear(dim, dim)
            )

    def forward(
        self, time: Tensor, context: Tensor | None, second_time: Tensor | None = None
    ) -> Tensor:
        embedding = self.time(time, second_time)
        return (
            embedding
            if self.context is None or context is None
            else embedding + self.context(context.flatten(1))
        )


def concatenate_estimate(x: Tensor, self_cond: Tensor | None) -> Tensor:
    """Concatenates x [batch, horizon, action_dim] and the previous estimate of the clean actions.

    Returns [batch, horizon, 2 * action_dim]; an estimate of None means zeros.
    """
    return torch.cat([x, torch.zeros_like(x) if self_cond is None else self_cond], dim=2)
