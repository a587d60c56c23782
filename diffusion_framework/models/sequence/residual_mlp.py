"""Residual MLP on whole action sequences, cheap to compute."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...storage.config import RecordsArguments
from ..layers import zero_init
from .context import SequenceInputs, TimeAndContext, concatenate_estimate


class ResidualMLP(RecordsArguments, nn.Module):
    """A residual MLP on a whole action sequence, flattened to one vector.

    It suits low-dimensional observations. Time and observations scale and shift the features of
    each residual layer.

    Args:
        horizon: Number of steps of the action sequence.
        action_dim: Number of values in one action.
        observation_steps: Number of episode steps whose observations condition the network; 0 for
            none.
        observation_dim: Number of values in the observations of one step; 0 for none.
        dim: Width of the layers, even.
        depth: Number of residual layers.
        self_condition: Whether the network also takes its previous estimate of the clean actions
            as input (self-conditioning).
        second_time: Whether the network also takes the time where the step ends, as `FlowMapLoss`
            needs.
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
        second_time: bool = False,
    ) -> None:
        super().__init__()
        self.sample_shape = (horizon, action_dim)
        context_shape = (observation_steps, observation_dim)
        self.inputs = SequenceInputs(self.sample_shape, context_shape)
        self.self_condition, self.second_time = self_condition, second_time
        size = horizon * action_dim
        self.embed = TimeAndContext(dim // 2, dim, context_shape, second_time)
        self.layer_in = nn.Linear(size * (2 if self_condition else 1), dim)
        self.layers = nn.ModuleList([_ResidualLayer(dim) for _ in range(depth)])
        self.norm_out = nn.LayerNorm(dim)
        self.layer_out = zero_init(nn.Linear(dim, size))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        self_cond: Tensor | None = None,
        context: Tensor | None = None,
        second_time: Tensor | None = None,
    ) -> Tensor:
        """Computes the network's output [batch, horizon, action_dim] for noised actions.

        See `UNet1D.forward` for the arguments.
        """
        self.inputs.check(x, time, self_cond, context, second_time)
        embedding = self.embed(time, context, second_time)
        h = (
            self.layer_in(
                (concatenate_estimate(x, self_cond) if self.self_condition else x).flatten(1)
            )
            + embedding
        )
        for layer in self.layers:
            h = layer(h, embedding)
        return self.layer_out(self.norm_out(h)).reshape(x.shape)


class _ResidualLayer(nn.Module):
    """Residual MLP of two layers, with adaptive scale and shift of its normalised input.

    Maps features [batch, dim] and an embedding [batch, dim] to [batch, dim]. Starts as the
    identity.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.scale_shift = nn.Linear(dim, 2 * dim)
        self.layer_in = nn.Linear(dim, 2 * dim)
        self.layer_out = zero_init(nn.Linear(2 * dim, dim))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.scale_shift(F.silu(embedding)).chunk(2, dim=1)
        return h + self.layer_out(
            F.silu(self.layer_in(torch.addcmul(shift, self.norm(h), scale + 1)))
        )
