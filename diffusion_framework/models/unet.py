"""The UNet of improved DDPM and its followers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..storage.config import RecordsArguments
from .layers import Attention, Downsample, LabelEmbedding, ResBlock, TimeEmbedding, Upsample, zero_init


class UNet(RecordsArguments, nn.Module):
    """A convolutional UNet with residual blocks, attention at chosen levels, and time by scale and shift.

    Args:
        dim: Channels at full resolution, even.
        dim_mults: Channels of each level, in units of dim; each level but the last halves height and width.
        channels: Channels of the images.
        image_size: Height and width in pixels, as one number or two; each divisible by 2^(number of levels - 1).
        blocks: Residual blocks a level on the way down, and one more on the way up.
        attention_levels: Levels with attention, counted from 0 at full resolution, or from the end if negative; the
            middle always has it.
        heads: Attention heads.
        dim_head: Channels of a head.
        groups: Groups of the group norms (fewer where they do not divide the channels).
        dropout: Share of activations dropped in each residual block, in [0, 1).
        self_condition: Whether the network also sees its own last estimate of the clean image.
        num_classes: Number of class labels, or None for none. One more label, num_classes, means "no class".
        learned_variance: Whether the output has twice the channels, the second half telling the variance.
        time_scale: The network's times are stretched by this before their sines and cosines are taken: 1000 for t in
            [0, 1], 1 for steps.
        checkpointed_levels: Levels with gradient checkpointing, counted as in attention_levels. The backward pass
            computes their blocks again: less memory for more time. The first levels hold the most.

    Raises:
        ValueError: sizes that do not fit together.
    """

    def __init__(
        self,
        dim: int = 64,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        channels: int = 3,
        image_size: int | tuple[int, int] = 64,
        *,
        blocks: int = 2,
        attention_levels: Sequence[int] = (-1,),
        heads: int = 4,
        dim_head: int = 32,
        groups: int = 8,
        dropout: float = 0.0,
        self_condition: bool = True,
        num_classes: int | None = None,
        learned_variance: bool = False,
        time_scale: float = 1000.0,
        checkpointed_levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        levels = len(dim_mults)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self._check_sizes(dim, dim_mults, attention_levels, checkpointed_levels)
        self.channels, self.self_condition, self.num_classes = channels, self_condition, num_classes
        self.learned_variance = learned_variance

        dims = [dim * mult for mult in dim_mults]
        dim_embedding = 4 * dim
        with_attention = {level % levels for level in attention_levels}
        checkpointed = {level % levels for level in checkpointed_levels}

        def resblock(dim_in: int, dim_out: int) -> ResBlock:
            return ResBlock(dim_in, dim_out, dim_embedding, groups, dropout)

        def block(dim_in: int, level: int) -> Block:
            attends = Attention(dims[level], heads, dim_head, groups) if level in with_attention else nn.Identity()
            return Block(resblock(dim_in, dims[level]), attends, level in checkpointed)

        self.embed_time = TimeEmbedding(dim, dim_embedding, time_scale)
        self.embed_label = LabelEmbedding(num_classes, dim_embedding)
        self.conv_in = nn.Conv2d(channels * (2 if self_condition else 1), dim, 3, padding=1)

        skips = [dim]  # channels of each activation that the way up will meet again
        self.down = nn.ModuleList()
        for level, dim_out in enumerate(dims):
            for _ in range(blocks):
                self.down.append(block(skips[-1], level))
                skips.append(dim_out)
            if level < levels - 1:
                self.down.append(Downsample(dim_out))
                skips.append(dim_out)

        attention = Attention(dims[-1], heads, dim_head, groups)
        self.middle = Block(resblock(dims[-1], dims[-1]), attention, levels - 1 in checkpointed)
        self.middle_out = resblock(dims[-1], dims[-1])

        self.up = nn.ModuleList()
        dim_now = dims[-1]
        for level, dim_out in reversed(list(enumerate(dims))):
            for _ in range(blocks + 1):
                self.up.append(block(dim_now + skips.pop(), level))
                dim_now = dim_out
            if level > 0:
                self.up.append(Upsample(dim_out))

        self.norm_out = nn.GroupNorm(math.gcd(groups, dim), dim)
        self.conv_out = zero_init(nn.Conv2d(dim, channels * (2 if learned_variance else 1), 3, padding=1))

    def _check_sizes(
        self, dim: int, dim_mults: Sequence[int], attention_levels: Sequence[int], checkpointed_levels: Sequence[int]
    ) -> None:
        levels = len(dim_mults)
        if dim < 2 or dim % 2 or levels == 0 or min(dim_mults) < 1:
            raise ValueError(f"UNet needs an even dim and at least one positive dim_mult; got {dim=}, {dim_mults=}")
        stride = 2 ** (levels - 1)
        if any(size < stride or size % stride for size in self.image_size):
            raise ValueError(
                f"image_size must be divisible by {stride}, as {levels} levels halve it {levels - 1} times; got "
                f"{self.image_size}: change image_size or give fewer dim_mults"
            )
        for name, chosen in (("attention_levels", attention_levels), ("checkpointed_levels", checkpointed_levels)):
            if any(not -levels <= level < levels for level in chosen):
                raise ValueError(f"{name} must lie in [{-levels}, {levels - 1}]; got {list(chosen)}")

    def forward(self, x: Tensor, time: Tensor, self_cond: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The output for noisy images.

        Args:
            x: [batch, channels, height, width].
            time: [batch], in [0, 1] (or another range, to go with time_scale).
            self_cond: Last estimate of the clean images in [-1, 1], shaped like x; None (no estimate yet) is zeros.
            labels: [batch] integers in [0, num_classes], for a network with classes.

        Returns:
            [batch, channels, height, width], or twice the channels with learned_variance.
        """
        if self.self_condition:
            x = torch.cat([x, torch.zeros_like(x) if self_cond is None else self_cond], dim=1)
        embedding = self.embed_time(time)
        label = self.embed_label(labels)
        if label is not None:
            embedding = embedding + label

        if x.device.type == "cpu":  # faster convolutions; on CUDA the group norms would undo it
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x)
        skips = [x]
        for stage in self.down:
            x = stage(x) if isinstance(stage, Downsample) else stage(x, embedding)
            skips.append(x)
        x = self.middle_out(self.middle(x, embedding), embedding)
        for stage in self.up:
            x = stage(x) if isinstance(stage, Upsample) else stage(torch.cat([x, skips.pop()], dim=1), embedding)
        return self.conv_out(nn.functional.silu(self.norm_out(x)))


class Block(nn.Module):
    """A residual block and what attends after it.

    Args:
        residual: Called with images and the embedding.
        attention: Called with what comes out.
        checkpointed: Whether the backward pass computes both again (gradient checkpointing).
    """

    def __init__(self, residual: ResBlock, attention: nn.Module, checkpointed: bool) -> None:
        super().__init__()
        self.residual, self.attention, self.checkpointed = residual, attention, checkpointed

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.checkpointed and self.training:
            return checkpoint(self._both, x, embedding, use_reentrant=False)
        return self._both(x, embedding)

    def _both(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.residual(x, embedding))
