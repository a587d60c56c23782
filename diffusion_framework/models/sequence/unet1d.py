"""A UNet over time, for action sequences (Janner et al. 2022; Chi et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...storage.config import RecordsArguments
from ..layers import zero_init
from .context import SequenceInputs, TimeAndContext, concatenate_estimate


class ResBlock1D(nn.Module):
    """Residual block of two convolutions over the steps, with group norm and FiLM conditioning.

    The embedding scales and shifts the features after the second group norm. Maps
    [batch, dim_in, steps] and an embedding [batch, dim_embedding] to [batch, dim_out, steps].
    Starts as the identity, or as a convolution of size 1 where the number of channels changes.
    """

    def __init__(
        self, dim_in: int, dim_out: int, dim_embedding: int, kernel_size: int, groups: int
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(math.gcd(groups, dim_in), dim_in)
        self.conv_in = nn.Conv1d(dim_in, dim_out, kernel_size, padding=kernel_size // 2)
        self.scale_shift = nn.Linear(dim_embedding, 2 * dim_out)
        self.norm_out = nn.GroupNorm(math.gcd(groups, dim_out), dim_out)
        self.conv_out = zero_init(
            nn.Conv1d(dim_out, dim_out, kernel_size, padding=kernel_size // 2)
        )
        self.skip = nn.Conv1d(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.scale_shift(F.silu(embedding))[:, :, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = torch.addcmul(shift, self.norm_out(h), scale + 1)
        return self.skip(x) + self.conv_out(F.silu(h))


class UNet1D(RecordsArguments, nn.Module):
    """A convolutional UNet over the steps of an action sequence.

    Time and observations scale and shift the features of each residual block.

    Args:
        horizon: Number of steps of the action sequence, divisible by 2^(number of down_dims - 1).
        action_dim: Number of values in one action.
        observation_steps: Number of episode steps whose observations condition the network; 0 for
            none.
        observation_dim: Number of values in the observations of one step; 0 for none.
        down_dims: Number of channels of each level. Each level but the last halves the number of
            steps.
        kernel_size: Kernel size of the convolutions, odd.
        groups: Number of groups of each group norm; fewer where groups does not divide the
            channels.
        self_condition: Whether the network also takes its previous estimate of the clean actions
            as input (self-conditioning).
        second_time: Whether the network also takes the time where the step ends, as `FlowMapLoss`
            needs.

    Raises:
        ValueError: If sizes do not fit together.
    """

    def __init__(
        self,
        horizon: int = 16,
        action_dim: int = 2,
        observation_steps: int = 2,
        observation_dim: int = 0,
        *,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        groups: int = 8,
        self_condition: bool = False,
        second_time: bool = False,
    ) -> None:
        super().__init__()
        stride = 2 ** (len(down_dims) - 1)
        if horizon < stride or horizon % stride:
            raise ValueError(
                f"Expected horizon divisible by {stride}, as {len(down_dims)} "
                f"levels halve it {len(down_dims) - 1} times, got {horizon}. "
                "Fix: change horizon or give fewer down_dims."
            )
        if not down_dims or min(down_dims) < 2 or down_dims[0] % 2 or kernel_size % 2 == 0:
            raise ValueError(
                "Expected down_dims of at least 2, the first one even, "
                f"and an odd kernel_size, got {down_dims=}, {kernel_size=}. "
                "Fix: start from down_dims=(256, 512, 1024), kernel_size=5."
            )
        self.sample_shape = (horizon, action_dim)
        context_shape = (observation_steps, observation_dim)
        self.inputs = SequenceInputs(self.sample_shape, context_shape, stride)
        self.self_condition, self.second_time = self_condition, second_time
        dims = list(down_dims)
        dim_embedding = 2 * dims[0]

        def block(dim_in: int, dim_out: int) -> ResBlock1D:
            return ResBlock1D(dim_in, dim_out, dim_embedding, kernel_size, groups)

        self.embed = TimeAndContext(dims[0], dim_embedding, context_shape, second_time)
        self.conv_in = nn.Conv1d(
            action_dim * (2 if self_condition else 1),
            dims[0],
            kernel_size,
            padding=kernel_size // 2,
        )
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, dim in enumerate(dims):
            last = level == len(dims) - 1
            shorter = nn.Identity() if last else nn.Conv1d(dim, dim, 3, stride=2, padding=1)
            self.down.append(
                nn.ModuleList([block(dims[max(0, level - 1)], dim), block(dim, dim), shorter])
            )
        self.middle = nn.ModuleList([block(dims[-1], dims[-1]), block(dims[-1], dims[-1])])
        for level in reversed(range(len(dims))):
            dim, dim_out = dims[level], dims[max(0, level - 1)]
            longer = (
                nn.Identity()
                if level == 0
                else nn.ConvTranspose1d(dim_out, dim_out, 4, stride=2, padding=1)
            )
            self.up.append(
                nn.ModuleList([block(2 * dim, dim_out), block(dim_out, dim_out), longer])
            )
        self.norm_out = nn.GroupNorm(math.gcd(groups, dims[0]), dims[0])
        self.conv_out = zero_init(nn.Conv1d(dims[0], action_dim, 1))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        self_cond: Tensor | None = None,
        context: Tensor | None = None,
        second_time: Tensor | None = None,
    ) -> Tensor:
        """Computes the network's output for noised actions.

        Args:
            x: Noised actions, [batch, horizon, action_dim].
            time: Noise levels [batch], in [0, 1].
            self_cond: Previous estimate of the clean actions, shaped like x. None means zeros, as
                before the first estimate.
            context: Observations [batch, observation_steps, observation_dim]; None for a network
                without observations.
            second_time: Time where the step ends, [batch]; None is `time`.

        Returns:
            The output [batch, horizon, action_dim].

        Raises:
            ValueError: If an input has another shape.
        """
        self.inputs.check(x, time, self_cond, context, second_time)
        if self.self_condition:
            x = concatenate_estimate(x, self_cond)
        embedding = self.embed(time, context, second_time)
        x = self.conv_in(rearrange(x, "b t a -> b a t"))
        skips = []
        for stage in self.down:
            first, second, shorter = stage.children()
            x = second(first(x, embedding), embedding)
            skips.append(x)
            x = shorter(x)
        for block in self.middle:
            x = block(x, embedding)
        for stage in self.up:
            first, second, longer = stage.children()
            x = first(torch.cat([x, skips.pop()], dim=1), embedding)
            x = longer(second(x, embedding))
        return rearrange(self.conv_out(F.silu(self.norm_out(x))), "b a t -> b t a")
