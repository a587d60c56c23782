"""Layers of the networks that see an image as a row of patches, [batch, patches, dim]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def patch_grid(image_size: tuple[int, ...], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches; ValueError where the patches do not fill the image."""
    if patch_size < 1 or any(size < patch_size or size % patch_size for size in image_size):
        raise ValueError(
            f"image_size must be divisible by patch_size; got {image_size} and {patch_size}: change either"
        )
    return image_size[0] // patch_size, image_size[1] // patch_size


def patchify(x: Tensor, size: int) -> Tensor:
    """[batch, channels, height, width] -> [batch, patches, size * size * channels], row by row."""
    return rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=size, q=size)


def unpatchify(patches: Tensor, size: int, rows: int) -> Tensor:
    """The inverse of `patchify`, for so many rows of patches."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=size, q=size)


def sin_cos_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Fixed embeddings of positions in a grid, [rows * columns, dim]: half of dim tells the row, half the column.

    Each half holds the sines, then the cosines, of the position at frequencies from 1 to 1/10000 (Vaswani et al. 2017;
    in two dimensions as Peebles & Xie 2023).

    Raises:
        ValueError: dim is not divisible by 4.
    """
    if dim < 4 or dim % 4:
        raise ValueError(f"positions in two dimensions need a dim divisible by 4; got {dim}")
    frequencies = torch.exp(torch.arange(dim // 4) * (-4 * math.log(10_000) / dim))

    def encode(positions: Tensor) -> Tensor:
        angles = positions.flatten()[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([encode(row), encode(column)], dim=1)


class TokenAttention(nn.Module):
    """Each token looks at all tokens, or at all of another row.

    [batch, n, dim], [batch, m, dim_seen] -> [batch, n, dim].

    Args:
        dim: Width of the tokens that look.
        heads: Attention heads; they share dim evenly.
        dim_seen: Width of the tokens looked at; None is dim.

    Raises:
        ValueError: dim is not divisible by heads.
    """

    def __init__(self, dim: int, heads: int, dim_seen: int | None = None) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise ValueError(f"the width of tokens must be divisible by heads; got {dim} and {heads}, change one")
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim if dim_seen is None else dim_seen, 2 * dim)
        self.to_out = nn.Linear(dim, dim)
        for weight in (self.to_q.weight, *self.to_kv.weight.chunk(2)):
            nn.init.xavier_uniform_(weight)  # torch's own is so small that all is looked at alike, and learning slow

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        q = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.heads)
        kv = self.to_kv(x if seen is None else seen)
        k, v = rearrange(kv, "b n (two h d) -> two b h n d", two=2, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class MLP(nn.Module):
    """Two linear layers, four times as wide in between: [..., dim] -> [..., dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_hidden = nn.Linear(dim, 4 * dim)
        self.to_out = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(F.gelu(self.to_hidden(x), approximate="tanh"))
