"""Layers of transformers on image patches: tokens [batch, patches, dim]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def patch_grid(image_size: tuple[int, ...], patch_size: int) -> tuple[int, int]:
    """Returns the number of rows and of columns of patches in an image.

    Raises:
        ValueError: If height or width, in pixels, is not divisible by patch_size.
    """
    if patch_size < 1 or any(size < patch_size or size % patch_size for size in image_size):
        raise ValueError(
            f"Expected image_size divisible by patch_size, got {image_size} and {patch_size}. "
            "Fix: change one of them."
        )
    return image_size[0] // patch_size, image_size[1] // patch_size


def patchify(x: Tensor, size: int) -> Tensor:
    """Cuts images into square patches, row by row.

    Maps [batch, channels, height, width] to [batch, patches, size * size * channels].
    """
    return rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=size, q=size)


def unpatchify(patches: Tensor, size: int, rows: int) -> Tensor:
    """Inverts `patchify`: puts patches back together, in the given number of rows of patches."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=size, q=size)


def patch_embedding(size: int, dim: int, bottleneck: int | None) -> nn.Module:
    """Returns a linear embedding of patches, of rank `bottleneck` at most (Li & He 2025).

    Maps [..., size] to [..., dim].

    Raises:
        ValueError: If the bottleneck is below 1.
    """
    if bottleneck is None:
        return nn.Linear(size, dim)
    if bottleneck < 1:
        raise ValueError(
            f"Expected a bottleneck of at least 1, or None for none, got {bottleneck}. "
            "Fix: try 128, which suits patches of 16 x 16 pixels."
        )
    return nn.Sequential(nn.Linear(size, bottleneck, bias=False), nn.Linear(bottleneck, dim))


def sin_cos_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Returns fixed sinusoidal positional embeddings of a grid, [rows * columns, dim].

    The first half of dim encodes the row, the second half the column. Each half holds the sines,
    then the cosines, of the position at frequencies from 1 to 1/10000 (Vaswani et al. 2017, in two
    dimensions as by Peebles & Xie 2023).

    Raises:
        ValueError: If dim is not divisible by 4.
    """
    if dim < 4 or dim % 4:
        raise ValueError(
            f"Expected dim divisible by 4, for positions in two dimensions, got {dim}. "
            "Fix: round dim up to a multiple of 4."
        )
    frequencies = torch.exp(torch.arange(dim // 4) * (-4 * math.log(10_000) / dim))

    def encode(positions: Tensor) -> Tensor:
        angles = positions.flatten()[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([encode(row), encode(column)], dim=1)


class TokenAttention(nn.Module):
    """Multi-head attention: self-attention, or cross-attention to context tokens.

    Maps tokens [batch, n, dim], and context [batch, m, dim_context] for cross-attention, to
    [batch, n, dim]. A mask [batch, n], or [batch, m] of the context, is False for tokens that no
    other one sees.

    Args:
        dim: Width of the tokens, divisible by heads.
        heads: Number of attention heads.
        dim_context: Width of the context tokens; None for self-attention.

    Raises:
        ValueError: If dim is not divisible by heads.
    """

    def __init__(self, dim: int, heads: int, dim_context: int | None = None) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise ValueError(
                f"Expected a token width divisible by heads, got {dim} and {heads}. "
                "Fix: change one of them."
            )
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim if dim_context is None else dim_context, 2 * dim)
        self.to_out = nn.Linear(dim, dim)
        for weight in (self.to_q.weight, *self.to_kv.weight.chunk(2)):
            # with PyTorch's smaller weights, attention is nearly uniform and learning slow
            nn.init.xavier_uniform_(weight)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        q = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.heads)
        kv = self.to_kv(x if context is None else context)
        k, v = rearrange(kv, "b n (two h d) -> two b h n d", two=2, h=self.heads)
        seen = None if mask is None else mask[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class MLP(nn.Module):
    """Two linear layers with a GELU and a hidden width of 4 * dim.

    Maps [..., dim] to the same shape.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_hidden = nn.Linear(dim, 4 * dim)
        self.to_out = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(F.gelu(self.to_hidden(x), approximate="tanh"))
