"""UNet for images, as in improved DDPM (Nichol & Dhariwal 2021) and later work."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..storage.config import RecordsArguments
from .conditioning import ConditionEmbedding, summed
from .inputs import ImageInputs
from .layers import (
    Attention,
    CrossAttention,
    Downsample,
    ResBlock,
    TimeEmbedding,
    Upsample,
    height_and_width,
    zero_init,
)


class UNet(RecordsArguments, nn.Module):
    """A convolutional UNet with residual blocks and attention at chosen levels.

    Time and label scale and shift the features of each residual block.

    Args:
        dim: Number of channels at full resolution, even.
        dim_mults: Number of channels of each level, in units of dim. Each level but the last halves
            height and width.
        channels: Number of image channels.
        image_size: Height and width in pixels, as one number or two; each divisible by
            2^(number of levels - 1).
        blocks: Number of residual blocks of each level in the encoder. The decoder has one
            more at each level.
        attention_levels: Levels with self-attention, counted from 0 at full resolution, or from the
            end if negative. The middle of the network always has self-attention.
        heads: Number of attention heads.
        dim_head: Number of channels of each attention head.
        groups: Number of groups of each group norm; fewer where groups does not divide the
            channels.
        dropout: Dropout rate of each residual block, in [0, 1).
        self_condition: Whether the network also takes its previous estimate of the clean image as
            input (self-conditioning).
        num_classes: Number of class labels, or None for a network without labels. The label
            num_classes means "no class".
        image_channels: Number of channels of the images of a condition, which are concatenated to
            the noised images, or None.
        vector_dim: Size of the vectors of a condition, or None.
        token_dim: Width of the tokens of a condition, such as an encoded text, or None. Pixels
            attend to them wherever they attend to each other.
        augmentation: Whether training transforms images at random and tells the network how, which
            helps small data sets. Samples are not transformed (see `Augmentation`).
        learned_variance: Whether the output has twice the channels; the second half sets the
            variance of the reverse process (Nichol & Dhariwal 2021).
        second_time: Whether the network also takes the time where the step ends, as `FlowMapLoss`
            needs.
        time_scale: Factor on times before their sinusoidal embedding. 1000 suits times in [0, 1];
            1 suits process steps (time_input: steps).
        checkpointed_levels: Levels with gradient checkpointing, counted as in attention_levels. It
            saves memory for more time, most of all at the first levels.

    Raises:
        ValueError: If sizes do not fit together.
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
        image_channels: int | None = None,
        vector_dim: int | None = None,
        token_dim: int | None = None,
        augmentation: bool = False,
        learned_variance: bool = False,
        second_time: bool = False,
        time_scale: float = 1000.0,
        checkpointed_levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        levels = len(dim_mults)
        self.image_size = height_and_width(image_size)
        self._check_sizes(dim, dim_mults, attention_levels, checkpointed_levels)
        self.channels, self.self_condition = channels, self_condition
        self.learned_variance, self.second_time = learned_variance, second_time
        self.augmentation = augmentation
        conditions = (num_classes, image_channels, vector_dim, token_dim)
        self.num_classes, self.image_channels, self.vector_dim, self.token_dim = conditions
        self.inputs = ImageInputs(
            channels, self.image_size, *conditions, multiple=2 ** (levels - 1)
        )

        dims = [dim * mult for mult in dim_mults]
        dim_embedding = 4 * dim
        with_attention = {level % levels for level in attention_levels}
        checkpointed = {level % levels for level in checkpointed_levels}

        def resblock(dim_in: int, dim_out: int) -> ResBlock:
            return ResBlock(dim_in, dim_out, dim_embedding, groups, dropout)

        def block(dim_in: int, level: int, attends: bool | None = None) -> UNetBlock:
            sizes = dims[level], heads, dim_head, groups
            attends = level in with_attention if attends is None else attends
            return UNetBlock(
                resblock(dim_in, dims[level]),
                Attention(*sizes) if attends else nn.Identity(),
                CrossAttention(*sizes, dim_embedding) if attends and token_dim else None,
                level in checkpointed,
            )

        self.embed_time = TimeEmbedding(dim, dim_embedding, time_scale, second_time)
        self.embed_conditions = ConditionEmbedding(dim_embedding, *conditions, augmentation)
        self.conv_in = nn.Conv2d(self.inputs.stacked(self_condition), dim, 3, padding=1)

        skips = [dim]  # channels of each skip connection to the decoder
        self.down = nn.ModuleList()
        for level, dim_out in enumerate(dims):
            for _ in range(blocks):
                self.down.append(block(skips[-1], level))
                skips.append(dim_out)
            if level < levels - 1:
                self.down.append(Downsample(dim_out))
                skips.append(dim_out)

        self.middle = block(dims[-1], levels - 1, attends=True)
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
        self.conv_out = zero_init(
            nn.Conv2d(dim, channels * (2 if learned_variance else 1), 3, padding=1)
        )

    def _check_sizes(
        self,
        dim: int,
        dim_mults: Sequence[int],
        attention_levels: Sequence[int],
        checkpointed_levels: Sequence[int],
    ) -> None:
        levels = len(dim_mults)
        if dim < 2 or dim % 2 or levels == 0 or min(dim_mults) < 1:
            raise ValueError(
                f"Expected an even dim and at least one positive dim_mult, got {dim=}, "
                f"{dim_mults=}. Fix: start from dim=64, dim_mults=(1, 2, 4, 8)."
            )
        stride = 2 ** (levels - 1)
        if any(size < stride or size % stride for size in self.image_size):
            raise ValueError(
                f"Expected image_size divisible by {stride}, as {levels} "
                f"levels halve it {levels - 1} times, got {self.image_size}. "
                "Fix: change image_size or give fewer dim_mults."
            )
        for name, chosen in (
            ("attention_levels", attention_levels),
            ("checkpointed_levels", checkpointed_levels),
        ):
            if any(not -levels <= level < levels for level in chosen):
                raise ValueError(
                    f"Expected {name} in [{-levels}, {levels - 1}], got {list(chosen)}. "
                    "Fix: count from 0 at full resolution, or from -1 at the last level."
                )

    @property
    def condition_keywords(self) -> frozenset[str]:
        """Keyword arguments that conditioners supply."""
        return self.embed_conditions.keywords

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        self_cond: Tensor | None = None,
        labels: Tensor | None = None,
        image: Tensor | None = None,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        token_mask: Tensor | None = None,
        second_time: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """Computes the network's output for noised images.

        Args:
            x: Noised images, [batch, channels, height, width].
            time: Noise levels [batch], in [0, 1] or another range that suits time_scale.
            self_cond: Previous estimate of the clean images, shaped like x, in the range of encoded
                data ([-1, 1] for images). None means zeros, as before the first estimate.
            labels: Class labels, integers [batch] in [0, num_classes]; None for a network without
                classes.
            image: Images of a condition, [batch, image_channels, height, width].
            vector: Vectors of a condition, [batch, vector_dim].
            tokens: Tokens of a condition, [batch, n, token_dim].
            token_mask: Mask of the tokens [batch, n], False for padding; None counts all.
            second_time: Time where the step ends, [batch]; None is `time`.
            augmentation: Description of a transformation of the images, [batch, 9]; None for none.

        Returns:
            The output [batch, channels, height, width], or [batch, 2 * channels, height, width]
            with learned_variance.
        """
        self.inputs.check(
            x, time, self_cond, labels, image, vector, tokens, token_mask, second_time, augmentation
        )
        if self.self_condition:
            x = torch.cat([x, torch.zeros_like(x) if self_cond is None else self_cond], dim=1)
        x = self.embed_conditions.concatenate(x, image)
        embedding = self.embed_time(time, second_time)
        single, told = self.embed_conditions(embedding, labels, vector, tokens, augmentation)
        embedding = summed(single, told, token_mask)

        # This layout makes convolutions faster on the CPU; on CUDA, group norms cancel the gain.
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x)
        skips = [x]
        for stage in self.down:
            plain = isinstance(stage, Downsample)
            x = stage(x) if plain else stage(x, embedding, told, token_mask)
            skips.append(x)
        x = self.middle_out(self.middle(x, embedding, told, token_mask), embedding)
        for stage in self.up:
            x = (
                stage(x)
                if isinstance(stage, Upsample)
                else stage(torch.cat([x, skips.pop()], dim=1), embedding, told, token_mask)
            )
        return self.conv_out(nn.functional.silu(self.norm_out(x)))


class UNetBlock(nn.Module):
    """A residual block followed by attention, with optional gradient checkpointing.

    Args:
        residual: Residual block, called with features and the embedding.
        attention: Layer applied to the output of the residual block.
        cross_attention: Attention to the tokens of a condition, or None.
        checkpointed: Whether to recompute all in the backward pass (gradient checkpointing).
    """

    def __init__(
        self,
        residual: ResBlock,
        attention: nn.Module,
        cross_attention: CrossAttention | None,
        checkpointed: bool,
    ) -> None:
        super().__init__()
        self.residual, self.attention, self.checkpointed = residual, attention, checkpointed
        self.cross_attention = cross_attention

    def forward(
        self, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        if self.checkpointed and self.training:
            return checkpoint(self._layers, x, embedding, tokens, mask, use_reentrant=False)
        return self._layers(x, embedding, tokens, mask)

    def _layers(
        self, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        x = self.attention(self.residual(x, embedding))
        if self.cross_attention is None or tokens is None:
            return x
        return self.cross_attention(x, tokens, mask)
