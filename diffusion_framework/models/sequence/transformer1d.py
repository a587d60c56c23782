"""A causal transformer for actions, with cross-attention to observations (Chi et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...storage.config import RecordsArguments
from ..layers import TimeEmbedding, zero_init
from .context import SequenceInputs, concatenate_estimate


class Transformer1D(RecordsArguments, nn.Module):
    """A transformer decoder whose tokens are actions (Chi et al. 2023).

    Self-attention runs over the actions. Cross-attention runs over the memory: one token for time
    and one for the observations of each step.

    Args:
        horizon: Number of steps of the action sequence.
        action_dim: Number of values in one action.
        observation_steps: Number of episode steps whose observations condition the network; 0 for
            none.
        observation_dim: Number of values in the observations of one step; 0 for none.
        dim: Width of the tokens, even and divisible by heads.
        depth: Number of layers.
        heads: Number of attention heads.
        dropout: Dropout rate of each layer, in [0, 1).
        causal: Whether each action attends only to itself and earlier actions, and to the
            observations up to its own step.
        self_condition: Whether the network also takes its previous estimate of the clean actions
            as input (self-conditioning).
        second_time: Whether the network also takes the time where the step ends, as `FlowMapLoss`
            needs.

    Raises:
        ValueError: If dim is odd or not divisible by heads.
    """

    def __init__(
        self,
        horizon: int = 16,
        action_dim: int = 2,
        observation_steps: int = 2,
        observation_dim: int = 0,
        *,
        dim: int = 256,
        depth: int = 8,
        heads: int = 4,
        dropout: float = 0.0,
        causal: bool = True,
        self_condition: bool = False,
        second_time: bool = False,
    ) -> None:
        super().__init__()
        if dim < 2 or dim % 2 or dim % heads:
            raise ValueError(
                f"Expected an even dim divisible by heads, got {dim=}, {heads=}. "
                "Fix: change one of them."
            )
        self.sample_shape = (horizon, action_dim)
        context_shape = (observation_steps, observation_dim)
        self.inputs = SequenceInputs(self.sample_shape, context_shape)
        self.self_condition, self.second_time = self_condition, second_time
        observation_tokens = observation_steps if observation_dim else 0
        self.embed_time = TimeEmbedding(dim, dim, second=second_time)
        self.embed_observation = nn.Linear(observation_dim, dim) if observation_tokens else None
        self.token_in = nn.Linear(action_dim * (2 if self_condition else 1), dim)
        self.positions = nn.Parameter(0.02 * torch.randn(horizon, dim))
        self.memory_positions = nn.Parameter(0.02 * torch.randn(1 + observation_tokens, dim))
        self.layers = nn.ModuleList([_DecoderLayer(dim, heads, dropout) for _ in range(depth)])
        self.norm_out = nn.LayerNorm(dim)
        self.token_out = zero_init(nn.Linear(dim, action_dim))
        self_mask = torch.ones(horizon, horizon, dtype=torch.bool)
        memory_mask = torch.ones(horizon, 1 + observation_tokens, dtype=torch.bool)
        if causal:  # observation i is token i + 1, and action j attends to observations up to j
            self_mask, memory_mask = self_mask.tril(), memory_mask.tril(1)
        self.register_buffer("self_mask", self_mask, persistent=False)
        self.register_buffer("memory_mask", memory_mask, persistent=False)

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
        memory = self.embed_time(time, second_time)[:, None]
        if self.embed_observation is not None and context is not None:
            memory = torch.cat([memory, self.embed_observation(context)], dim=1)
        memory = memory + self.memory_positions
        h = (
            self.token_in(concatenate_estimate(x, self_cond) if self.self_condition else x)
            + self.positions
        )
        for layer in self.layers:
            h = layer(h, memory, self.self_mask, self.memory_mask)
        return self.token_out(self.norm_out(h))


class _DecoderLayer(nn.Module):
    """Self-attention, cross-attention and an MLP, each added to its input.

    Starts as the identity.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(3)])
        self.self_attention, self.cross_attention = _Attention(dim, heads), _Attention(dim, heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), zero_init(nn.Linear(4 * dim, dim))
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, memory: Tensor, self_mask: Tensor, memory_mask: Tensor) -> Tensor:
        norm_self, norm_cross, norm_mlp = self.norms
        normed = norm_self(h)
        h = h + self.dropout(self.self_attention(normed, normed, self_mask))
        h = h + self.dropout(self.cross_attention(norm_cross(h), memory, memory_mask))
        return h + self.dropout(self.mlp(norm_mlp(h)))


class _Attention(nn.Module):
    """Attention of tokens [batch, n, dim] to memory [batch, m, dim] where mask [n, m] is True."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.to_out = zero_init(nn.Linear(dim, dim))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        q = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.to_kv(memory), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))
