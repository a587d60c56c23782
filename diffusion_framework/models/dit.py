"""DiT, a transformer on image patches with adaptive layer norms (Peebles & Xie 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..storage.config import RecordsArguments
from .conditioning import ConditionEmbedding, joined_mask, summed
from .inputs import ImageInputs
from .layers import TimeEmbedding, height_and_width, zero_init
from .tokens import (
    MLP,
    TokenAttention,
    patch_embedding,
    patch_grid,
    patchify,
    sin_cos_positions,
    unpatchify,
)


class DiT(RecordsArguments, nn.Module):
    """A diffusion transformer with adaLN-Zero blocks (Peebles & Xie 2023), on pixels.

    Args:
        dim: Width of the tokens, divisible by 4 and by heads.
        depth: Number of transformer blocks.
        heads: Number of attention heads.
        patch_size: Height and width of a patch in pixels.
        channels: Number of image channels.
        image_size: Height and width in pixels, as one number or two; each divisible by patch_size.
        bottleneck: Width to which patches are projected before the width of the tokens, such as 128
            for large patches of pixels (Li & He 2025, "JiT"); None for none.
        self_condition: Whether the network also takes its previous estimate of the clean image as
            input (self-conditioning).
        num_classes: Number of class labels, or None for a network without labels. The label
            num_classes means "no class".
        image_channels: Number of channels of the images of a condition, which are concatenated to
            the noised images, or None.
        vector_dim: Size of the vectors of a condition, or None.
        token_dim: Width of the tokens of a condition, such as an encoded text, or None. They
            stand beside the tokens of the patches.
        augmentation: Whether training transforms images at random and tells the network how, which
            helps small data sets. Samples are not transformed (see `Augmentation`).
        learned_variance: Whether the output has twice the channels; the second half sets the
            variance of the reverse process (Nichol & Dhariwal 2021).
        second_time: Whether the network also takes the time where the step ends, as `FlowMapLoss`
            needs.
        time_scale: Factor on times before their sinusoidal embedding. 1000 suits times in [0, 1];
            1 suits process steps (time_input: steps).

    Raises:
        ValueError: If sizes do not fit together.
    """

    positions: Tensor

    def __init__(
        self,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch_size: int = 4,
        channels: int = 3,
        image_size: int | tuple[int, int] = 64,
        *,
        bottleneck: int | None = None,
        self_condition: bool = True,
        num_classes: int | None = None,
        image_channels: int | None = None,
        vector_dim: int | None = None,
        token_dim: int | None = None,
        augmentation: bool = False,
        learned_variance: bool = False,
        second_time: bool = False,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        _check_sizes(depth, channels)
        self.image_size = height_and_width(image_size)
        self.channels, self.patch_size, self.augmentation = channels, patch_size, augmentation
        self.self_condition, self.learned_variance = self_condition, learned_variance
        self.second_time = second_time
        conditions = (num_classes, image_channels, vector_dim, token_dim)
        self.num_classes, self.image_channels, self.vector_dim, self.token_dim = conditions
        self.inputs = ImageInputs(channels, self.image_size, *conditions)
        self.rows, columns = patch_grid(self.image_size, patch_size)

        positions = sin_cos_positions(self.rows, columns, dim)
        self.register_buffer("positions", positions, persistent=False)
        self.embed_time = TimeEmbedding(dim, dim, time_scale, second_time)
        self.embed_conditions = ConditionEmbedding(dim, *conditions, augmentation)
        pixels = patch_size**2 * self.inputs.stacked(self_condition)
        self.embed_patches = patch_embedding(pixels, dim, bottleneck)
        self.blocks = nn.ModuleList(DiTBlock(dim, heads) for _ in range(depth))
        self.modulate_out = Modulation(dim, 2)
        self.to_patches = zero_init(nn.Linear(dim, patch_size**2 * channels * 2**learned_variance))

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
        h = self.embed_patches(patchify(x, self.patch_size)) + self.positions
        patches = h.shape[1]
        mask = None if told is None else joined_mask(h, token_mask)
        h = h if told is None else torch.cat([h, told], dim=1)
        for block in self.blocks:
            h = block(h, embedding, mask)
        scale, shift = self.modulate_out(embedding)
        h = _modulate(h[:, :patches], scale, shift)
        return unpatchify(self.to_patches(h), self.patch_size, self.rows)


class DiTBlock(nn.Module):
    """Transformer block with adaLN-Zero: the embedding scales, shifts and gates attention and MLP.

    Maps tokens [batch, n, dim] and an embedding [batch, dim] to [batch, n, dim]. No token attends
    to those where a mask [batch, n] is False. Starts as the identity, because all gates start at
    zero.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.modulate = Modulation(dim, 6)
        self.attention = TokenAttention(dim, heads)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor, embedding: Tensor, mask: Tensor | None = None) -> Tensor:
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = self.modulate(embedding)
        x = x + gate * self.attention(_modulate(x, scale, shift), mask=mask)
        return x + gate_mlp * self.mlp(_modulate(x, scale_mlp, shift_mlp))


class Modulation(nn.Module):
    """Scales, shifts and gates computed from the embedding, all zero at first.

    Maps [batch, dim] to a tuple of `parts` tensors [batch, 1, dim].
    """

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = zero_init(nn.Linear(dim, parts * dim))

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        return self.linear(nn.functional.silu(embedding))[:, None].chunk(self.parts, dim=-1)


def _modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6), scale + 1)


def _check_sizes(depth: int, channels: int) -> None:
    if min(depth, channels) < 1:
        raise ValueError(
            f"Expected at least one block and one channel, got {depth=}, {channels=}. "
            "Fix: give at least 1 of each."
        )
