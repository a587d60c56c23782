"""Layers shared by the networks: time embedding, residual blocks, attention and resampling."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def zero_init(layer: nn.Conv1d | nn.Conv2d | nn.Linear) -> nn.Conv1d | nn.Conv2d | nn.Linear:
    """Sets weights and bias of a layer to zero and returns the layer.

    A residual block that ends in this layer starts as the identity; a network starts as zero.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Returns the height and the width of images given as one number or two.

    Raises:
        ValueError: If the size is not one or two integers.
    """
    several = isinstance(image_size, Sequence) and not isinstance(image_size, str)
    sizes: Any = image_size if several else (image_size, image_size)
    try:
        height, width = (operator.index(size) for size in sizes)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected image_size as one integer or (height, width), got {image_size!r:.60}. "
            "Fix: for volumes and videos, write a network of your own with sample_shape="
            "(channels, depth, height, width)."
        ) from error
    return height, width


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of time (Vaswani et al. 2017), followed by an MLP of two layers.

    Maps [batch] to [batch, dim_out]. With a second time, its embedding by an MLP of its own is
    added. That one starts as zero.

    Args:
        dim: Number of sines and cosines together, even.
        dim_out: Width of the embedding.
        scale: Factor on times before their sinusoidal embedding, at frequencies from 1 to 1/10000;
            1000 suits times in [0, 1].
        second: Whether there is a second time.
    """

    def __init__(self, dim: int, dim_out: int, scale: float = 1000.0, second: bool = False) -> None:
        super().__init__()
        self.num_frequencies, self.scale = dim // 2, scale
        waves = 2 * self.num_frequencies
        self.layers = nn.Sequential(
            nn.Linear(waves, dim_out), nn.SiLU(), nn.Linear(dim_out, dim_out)
        )
        self.second_layers = None
        if second:
            self.second_layers = nn.Sequential(
                nn.Linear(waves, dim_out), nn.SiLU(), zero_init(nn.Linear(dim_out, dim_out))
            )

    def forward(self, time: Tensor, second_time: Tensor | None = None) -> Tensor:
        embedding = self.layers(self._waves(time))
        if self.second_layers is None:
            return embedding
        return embedding + self.second_layers(
            self._waves(time if second_time is None else second_time)
        )

    def _waves(self, time: Tensor) -> Tensor:
        """Returns sines and cosines [batch, waves] in the dtype of the weights."""
        index = torch.arange(self.num_frequencies, device=time.device, dtype=torch.float32)
        frequencies = torch.exp(index * (-math.log(10_000) / self.num_frequencies))
        angles = self.scale * time.float()[:, None] * frequencies
        # float32, because half precision does not resolve angles near 1000
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return waves.to(next(self.parameters()).dtype)


class ResBlock(nn.Module):
    """Residual block of two convolutions with group norm and adaptive scale and shift.

    The embedding scales and shifts the features after the second group norm (Dhariwal & Nichol
    2021). Maps [batch, dim_in, height, width] and an embedding [batch, dim_embedding] to
    [batch, dim_out, height, width]. Starts as the identity, or as a 1 x 1 convolution where the
    number of channels changes.
    """

    def __init__(
        self, dim_in: int, dim_out: int, dim_embedding: int, groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(math.gcd(groups, dim_in), dim_in)
        self.conv_in = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.scale_shift = nn.Linear(dim_embedding, 2 * dim_out)
        self.norm_out = nn.GroupNorm(math.gcd(groups, dim_out), dim_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(nn.Conv2d(dim_out, dim_out, 3, padding=1))
        self.skip = nn.Conv2d(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.scale_shift(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = torch.addcmul(shift, self.norm_out(h), scale + 1)
        return self.skip(x) + self.conv_out(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Self-attention among all pixels, added to its input.

    Maps [batch, dim, height, width] to the same shape. Starts as the identity.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(math.gcd(groups, dim), dim)
        self.to_qkv = nn.Conv2d(dim, 3 * heads * dim_head, 1)
        self.to_out = zero_init(nn.Conv2d(heads * dim_head, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[-2]
        qkv = rearrange(
            self.to_qkv(self.norm(x)),
            "b (three h d) y x -> three b h (y x) d",
            three=3,
            h=self.heads,
        )
        q, k, v = qkv.contiguous()  # fused kernels need a stride of 1 over the channels of a head
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.to_out(rearrange(out, "b h (y x) d -> b (h d) y x", y=height))


class CrossAttention(nn.Module):
    """Attention of all pixels to the tokens of a condition, added to its input.

    Maps [batch, dim, height, width], tokens [batch, n, dim_tokens] and a mask [batch, n], which is
    False for padding, to [batch, dim, height, width]. Starts as the identity.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, groups: int, dim_tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(math.gcd(groups, dim), dim)
        self.to_q = nn.Conv2d(dim, heads * dim_head, 1)
        self.to_kv = nn.Linear(dim_tokens, 2 * heads * dim_head)
        self.to_out = zero_init(nn.Conv2d(heads * dim_head, dim, 1))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        height = x.shape[-2]
        q = rearrange(self.to_q(self.norm(x)), "b (h d) y x -> b h (y x) d", h=self.heads)
        kv = self.to_kv(tokens)
        k, v = rearrange(kv, "b n (two h d) -> two b h n d", two=2, h=self.heads)
        seen = None if mask is None else mask[:, None, None, :]
        out = F.scaled_dot_product_attention(q.contiguous(), k, v, attn_mask=seen)
        return x + self.to_out(rearrange(out, "b h (y x) d -> b (h d) y x", y=height))


class Downsample(nn.Module):
    """Halves height and width with a strided convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles height and width with nearest-neighbour interpolation and a convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
