"""Diffusion transformers: attention among all patches, told time and label through its layer norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..storage.config import RecordsArguments
from .layers import LabelEmbedding, TimeEmbedding, zero_init
from .tokens import MLP, TokenAttention, patch_grid, patchify, sin_cos_positions, unpatchify


class DiT(RecordsArguments, nn.Module):
    """A diffusion transformer with adaptive layer norm zero (Peebles & Xie 2023), on the pixels themselves.

    Args:
        dim: Width of the tokens, divisible by 4 and by heads.
        depth: Transformer blocks.
        heads: Attention heads.
        patch_size: Side of the square patches in pixels.
        channels: Channels of the images.
        image_size: Height and width in pixels, as one number or two; divisible by patch_size.
        self_condition: Whether the network also sees its own last estimate of the clean image.
        num_classes: Number of class labels, or None for none. One more label, num_classes, means "no class".
        learned_variance: Whether the output has twice the channels, the second half telling the variance.
        time_scale: The network's times are stretched by this before their sines and cosines are taken: 1000 for t in
            [0, 1], 1 for steps.

    Raises:
        ValueError: sizes that do not fit together.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch_size: int = 4,
        channels: int = 3,
        image_size: int | tuple[int, int] = 64,
        *,
        self_condition: bool = True,
        num_classes: int | None = None,
        learned_variance: bool = False,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        if min(depth, channels) < 1:
            raise ValueError(f"DiT needs at least one block and channel; got {depth=}, {channels=}")
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.channels, self.patch_size, self.num_classes = channels, patch_size, num_classes
        self.self_condition, self.learned_variance = self_condition, learned_variance
        self.rows, columns = patch_grid(self.image_size, patch_size)

        self.positions: Tensor
        self.register_buffer("positions", sin_cos_positions(self.rows, columns, dim), persistent=False)
        self.embed_time = TimeEmbedding(dim, dim, time_scale)
        self.embed_label = LabelEmbedding(num_classes, dim)
        self.embed_patches = nn.Linear(patch_size**2 * channels * (2 if self_condition else 1), dim)
        self.blocks = nn.ModuleList(DiTBlock(dim, heads) for _ in range(depth))
        self.modulate_out = Modulation(dim, 2)
        self.to_patches = zero_init(nn.Linear(dim, patch_size**2 * channels * (2 if learned_variance else 1)))

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

        tokens = self.embed_patches(patchify(x, self.patch_size)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, embedding)
        scale, shift = self.modulate_out(embedding)
        return unpatchify(self.to_patches(_modulated(tokens, scale, shift)), self.patch_size, self.rows)


class DiTBlock(nn.Module):
    """Attention and an MLP, scaled, shifted and gated by the embedding; starts as the identity, with gates of 0.

    [batch, n, dim], [batch, dim] -> [batch, n, dim].
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.modulate = Modulation(dim, 6)
        self.attention = TokenAttention(dim, heads)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = self.modulate(embedding)
        x = x + gate * self.attention(_modulated(x, scale, shift))
        return x + gate_mlp * self.mlp(_modulated(x, scale_mlp, shift_mlp))


class Modulation(nn.Module):
    """So many scales, shifts and gates from the embedding, all 0 at first: [batch, dim] -> each [batch, 1, dim]."""

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = zero_init(nn.Linear(dim, parts * dim))

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        return self.linear(nn.functional.silu(embedding))[:, None].chunk(self.parts, dim=-1)


def _modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6), scale + 1)
