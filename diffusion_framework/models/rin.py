"""RIN, a recurrent interface network that computes mostly on latents (Jabri et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..storage.config import RecordsArguments
from .conditioning import ConditionEmbedding, joined_mask
from .inputs import ImageInputs, check_shape
from .layers import TimeEmbedding, height_and_width, zero_init
from .tokens import MLP, TokenAttention, patch_grid, patchify, unpatchify


class RIN(RecordsArguments, nn.Module):
    """A recurrent interface network (RIN) on image patches.

    See Jabri et al. 2022, "Scalable adaptive computation for iterative generation".

    The tokens of the image patches are the interface. In each block, a small set of latents reads
    from the interface, computes, and writes back. Time and the conditions are more tokens among
    the latents.

    The latents start from learned vectors. To these, the latents of the previous call are added
    through a normalised projection (latent self-conditioning, sec. 3.2). Its scale starts at zero,
    so an untrained network ignores the previous latents.

    Args:
        dim: Width of the interface tokens, divisible by heads.
        latent_dim: Width of the latents, even and divisible by heads.
        num_latents: Number of latents.
        blocks: Number of blocks, each of which reads, computes and writes.
        depth: Number of self-attention layers on the latents in each block.
        heads: Number of attention heads.
        patch_size: Height and width of a patch in pixels.
        channels: Number of image channels.
        image_size: Height and width in pixels, as one number or two; each divisible by patch_size.
        self_condition: Whether the network also takes its previous estimate of the clean image as
            input (self-conditioning).
        num_classes: Number of class labels, or None for a network without labels. The label
            num_classes means "no class".
        image_channels: Number of channels of the images of a condition, which are concatenated to
            the noised images, or None.
        vector_dim: Size of the vectors of a condition, or None.
        token_dim: Width of the tokens of a condition, such as an encoded text, or None. They
            stand beside the latents, as time, label and vector do.
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

    def __init__(
        self,
        dim: int = 256,
        latent_dim: int = 512,
        num_latents: int = 128,
        blocks: int = 4,
        depth: int = 4,
        heads: int = 8,
        patch_size: int = 4,
        channels: int = 3,
        image_size: int | tuple[int, int] = 64,
        *,
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
        _check_sizes(num_latents, blocks, channels, depth, latent_dim)
        self.image_size, self.patch_size = height_and_width(image_size), patch_size
        self.channels, self.second_time, self.augmentation = channels, second_time, augmentation
        self.self_condition, self.learned_variance = self_condition, learned_variance
        told = (num_classes, image_channels, vector_dim, token_dim)
        self.num_classes, self.image_channels, self.vector_dim, self.token_dim = told
        self.inputs = ImageInputs(channels, self.image_size, *told)
        self.rows, columns = patch_grid(self.image_size, patch_size)
        self.embed_time = TimeEmbedding(latent_dim, latent_dim, time_scale, second_time)
        self.embed_conditions = ConditionEmbedding(latent_dim, *told, augmentation)
        self.embed_patches = nn.Linear(patch_size**2 * self.inputs.stacked(self_condition), dim)
        self.positions = nn.Parameter(torch.randn(self.rows * columns, dim))
        self.first_latents = nn.Parameter(torch.randn(num_latents, latent_dim))
        self.warm_start = WarmStart(latent_dim)
        self.blocks = nn.ModuleList(RINBlock(dim, latent_dim, depth, heads) for _ in range(blocks))
        self.norm_out = nn.LayerNorm(dim)
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
        latents: Tensor | None = None,
        labels: Tensor | None = None,
        image: Tensor | None = None,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        token_mask: Tensor | None = None,
        second_time: Tensor | None = None,
        augmentation: Tensor | None = None,
        return_latents: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Computes the network's output for noised images, and optionally the next latents.

        Args:
            x: Noised images, [batch, channels, height, width].
            time: Noise levels [batch], in [0, 1] or another range that suits time_scale.
            self_cond: Previous estimate of the clean images, shaped like x, in the range of encoded
                data ([-1, 1] for images). None means zeros, as before the first estimate.
            latents: Latents of the previous call, [batch, num_latents, latent_dim]. None means
                zeros, as before the first call. The caller detaches them, as `NetworkDenoiser`
                does.
            labels: Class labels, integers [batch] in [0, num_classes]; None for a network without
                classes.
            image: Images of a condition, [batch, image_channels, height, width].
            vector: Vectors of a condition, [batch, vector_dim].
            tokens: Tokens of a condition, [batch, n, token_dim].
            token_mask: Mask of the tokens [batch, n], False for padding; None counts all.
            second_time: Time where the step ends, [batch]; None is `time`.
            augmentation: Description of a transformation of the images, [batch, 9]; None for none.
            return_latents: Whether to return the latents too.

        Returns:
            The output [batch, channels, height, width], or [batch, 2 * channels, height, width]
            with learned_variance. With return_latents, a tuple of the output and the latents
            [batch, num_latents, latent_dim].
        """
        self.inputs.check(
            x, time, self_cond, labels, image, vector, tokens, token_mask, second_time, augmentation
        )
        if self.self_condition:
            x = torch.cat([x, torch.zeros_like(x) if self_cond is None else self_cond], dim=1)
        x = self.embed_conditions.concatenate(x, image)
        interface = self.embed_patches(patchify(x, self.patch_size)) + self.positions

        check_shape("latents", latents, (len(x), *self.first_latents.shape))
        if latents is None:
            latents = self.first_latents.new_zeros(len(x), *self.first_latents.shape)
        latents = self.first_latents + self.warm_start(latents)
        embedding = self.embed_time(time, second_time)
        single, told = self.embed_conditions(embedding, labels, vector, tokens, augmentation)
        alone = torch.stack(single, dim=1)
        latents, mask = torch.cat([latents, alone], dim=1), None
        if told is not None:
            mask = joined_mask(latents, token_mask)
            latents = torch.cat([latents, told], dim=1)

        for block in self.blocks:
            latents, interface = block(latents, interface, mask)
        out = unpatchify(self.to_patches(self.norm_out(interface)), self.patch_size, self.rows)
        return (out, latents[:, : len(self.first_latents)]) if return_latents else out


class WarmStart(nn.Module):
    """Projects and normalises the previous latents for latent self-conditioning.

    See Jabri et al. 2022, sec. 3.2. Maps [batch, n, dim] to the same shape. Starts as zero.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = MLP(dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.norm.weight)

    def forward(self, latents: Tensor) -> Tensor:
        return self.norm(latents + self.mlp(latents))


class RINBlock(nn.Module):
    """One block, in which latents read from the interface, compute, and write back.

    Maps latents [batch, m, latent_dim] and interface [batch, n, dim] to the same shapes. Latents
    where a mask [batch, m] is False are not read by others. See Jabri et al. 2022, fig. 3.
    """

    def __init__(self, dim: int, latent_dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.read = TransformerLayer(latent_dim, heads, dim)
        self.compute = nn.ModuleList(TransformerLayer(latent_dim, heads) for _ in range(depth))
        self.write = TransformerLayer(dim, heads, latent_dim)

    def forward(
        self, latents: Tensor, interface: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        latents = self.read(latents, interface)
        for layer in self.compute:
            latents = layer(latents, mask=mask)
        return latents, self.write(interface, latents, mask)


class TransformerLayer(nn.Module):
    """Transformer layer with pre-normalisation: attention and an MLP, each added to its input.

    Args:
        dim: Width of the tokens.
        heads: Number of attention heads.
        dim_context: Width of the tokens of cross-attention; None for self-attention.
    """

    def __init__(self, dim: int, heads: int, dim_context: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim_context) if dim_context is not None else None
        self.attention = TokenAttention(dim, heads, dim_context)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = MLP(dim)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        normed = None if self.norm_context is None else self.norm_context(context)
        x = x + self.attention(self.norm(x), normed, mask)
        return x + self.mlp(self.norm_mlp(x))


def _check_sizes(num_latents: int, blocks: int, channels: int, depth: int, latent_dim: int) -> None:
    if min(num_latents, blocks, channels) < 1 or depth < 0 or latent_dim % 2:
        raise ValueError(
            "Expected at least one latent, block and channel, a depth of at "
            f"least 0 and an even latent_dim, got {num_latents=}, {blocks=}, "
            f"{channels=}, {depth=}, {latent_dim=}. Fix: change the one out of range."
        )
