"""Layers that the networks share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def zero_init(layer: nn.Conv1d | nn.Conv2d | nn.Linear) -> nn.Conv1d | nn.Conv2d | nn.Linear:
    """The layer, with weights and bias 0: a block that ends in it starts as the identity, a network as 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class TimeEmbedding(nn.Module):
    """Sines and cosines of time, then two linear layers: [batch] -> [batch, dim_out].

    Args:
        dim: Number of sines and cosines; even.
        dim_out: Width of the result.
        scale: Times are stretched by this, so that the usual frequencies (Vaswani et al. 2017), from 1 to 1/10000,
            tell them apart: 1000 for times in [0, 1].
    """

    def __init__(self, dim: int, dim_out: int, scale: float = 1000.0) -> None:
        super().__init__()
        self.pairs, self.scale = dim // 2, scale
        self.layers = nn.Sequential(nn.Linear(2 * self.pairs, dim_out), nn.SiLU(), nn.Linear(dim_out, dim_out))

    def forward(self, time: Tensor) -> Tensor:
        steps = torch.arange(self.pairs, device=time.device, dtype=torch.float32)
        frequencies = torch.exp(steps * (-math.log(10_000) / self.pairs))
        angles = self.scale * time.float()[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # half precision has no thousandths of 1000
        return self.layers(waves.to(next(self.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """One learned vector for each class, and one for no class: [batch] integers in [0, num_classes] -> [batch, dim].

    Args:
        num_classes: Number of classes; None for a network without labels, whose embedding is None.
        dim: Width of the vectors.
    """

    def __init__(self, num_classes: int | None, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, dim) if num_classes is not None else None

    def forward(self, labels: Tensor | None) -> Tensor | None:
        if (labels is None) != (self.table is None):
            raise ValueError(f"a network with num_classes={self.num_classes} got labels {labels}; give both or neither")
        return None if self.table is None else self.table(labels)


class ResBlock(nn.Module):
    """Two convolutions with group norm; the embedding scales and shifts between them (Dhariwal & Nichol 2021).

    [batch, dim_in, h, w], [batch, dim_embedding] -> [batch, dim_out, h, w]. Starts as the identity (or projection).
    """

    def __init__(self, dim_in: int, dim_out: int, dim_embedding: int, groups: int, dropout: float) -> None:
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
    """Self-attention over all positions, added to its input: [batch, dim, h, w] -> the same. Starts as the identity."""

    def __init__(self, dim: int, heads: int, dim_head: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(math.gcd(groups, dim), dim)
        self.to_qkv = nn.Conv2d(dim, 3 * heads * dim_head, 1)
        self.to_out = zero_init(nn.Conv2d(heads * dim_head, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[-2]
        qkv = rearrange(self.to_qkv(self.norm(x)), "b (three h d) y x -> three b h (y x) d", three=3, h=self.heads)
        q, k, v = qkv.contiguous()  # fused kernels want the channels of a head side by side
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.to_out(rearrange(out, "b h (y x) d -> b (h d) y x", y=height))


class Downsample(nn.Module):
    """Half the height and width, by a strided convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the height and width, by repetition and a convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
