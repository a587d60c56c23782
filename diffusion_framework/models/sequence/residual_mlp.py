"""A residual MLP over whole action sequences: little compute, for low-dimensional observations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...storage.config import RecordsArguments
from ..layers import zero_init
from .context import TimeAndContext, with_estimate


class ResidualMLP(RecordsArguments, nn.Module):
    """Residual layers that see a whole action sequence at once; time and observations scale and shift within each.

    Args:
        horizon: Steps of the sequence.
        action_dim: Numbers of one action.
        observation_steps: Observations that it is told, of so many steps; 0 for none.
        observation_dim: Numbers of the observations of one step.
        dim: Width of the layers, even.
        depth: Number of residual layers.
        self_condition: Whether the network also sees its own last estimate of the clean actions.
    """

    def __init__(
        self,
        horizon: int = 16,
        action_dim: int = 2,
        observation_steps: int = 2,
        observation_dim: int = 0,
        *,
        dim: int = 512,
        depth: int = 4,
        self_condition: bool = False,
    ) -> None:
        super().__init__()
        self.sample_shape = (horizon, action_dim)
        self.context_shape = (observation_steps, observation_dim)
        self.self_condition = self_condition
        numbers = horizon * action_dim
        self.embed = TimeAndContext(dim // 2, dim, self.context_shape)
        self.layer_in = nn.Linear(numbers * (2 if self_condition else 1), dim)
        self.layers = nn.ModuleList([_Layer(dim) for _ in range(depth)])
        self.norm_out = nn.LayerNorm(dim)
        self.layer_out = zero_init(nn.Linear(dim, numbers))

    def forward(
        self, x: Tensor, time: Tensor, self_cond: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """The output [batch, horizon, action_dim] for noisy actions; arguments as for `UNet1D`."""
        embedding = self.embed(time, context)
        h = self.layer_in((with_estimate(x, self_cond) if self.self_condition else x).flatten(1)) + embedding
        for layer in self.layers:
            h = layer(h, embedding)
        return self.layer_out(self.norm_out(h)).reshape(x.shape)


class _Layer(nn.Module):
    """[batch, dim], [batch, dim] -> [batch, dim]. Starts as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.scale_shift = nn.Linear(dim, 2 * dim)
        self.layer_in = nn.Linear(dim, 2 * dim)
        self.layer_out = zero_init(nn.Linear(2 * dim, dim))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.scale_shift(F.silu(embedding)).chunk(2, dim=1)
        return h + self.layer_out(F.silu(self.layer_in(torch.addcmul(shift, self.norm(h), scale + 1))))
