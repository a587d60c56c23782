"""Recurrent interface networks: most of the computing happens in a few latents, not in the many patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..storage.config import RecordsArguments
from .layers import LabelEmbedding, TimeEmbedding, zero_init
from .tokens import MLP, TokenAttention, patch_grid, patchify, unpatchify


class RIN(RecordsArguments, nn.Module):
    """A recurrent interface network (Jabri et al. 2022, "Scalable adaptive computation for iterative generation").

    The patches of the image are the interface. Block by block, a small set of latents reads from it, computes, and
    writes back; time and label are two more tokens beside the latents. The latents start from learned vectors, to which
    the last call's latents are added through a normalised projection (sec. 3.2). Its scale starts at 0, so that a new
    network makes nothing of them.

    Args:
        dim: Width of the interface.
        latent_dim: Width of the latents, even.
        num_latents: Number of latents.
        blocks: Rounds of reading, computing and writing.
        depth: Self-attention layers of the latents in each block.
        heads: Attention heads; dim and latent_dim are divisible by it.
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
        learned_variance: bool = False,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        if min(num_latents, blocks, channels) < 1 or depth < 0 or latent_dim % 2:
            raise ValueError(
                "RIN needs at least one latent, block and channel, depth of at least 0 and an even latent_dim; got "
                f"{num_latents=}, {blocks=}, {channels=}, {depth=}, {latent_dim=}"
            )
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.channels, self.patch_size, self.num_classes = channels, patch_size, num_classes
        self.self_condition, self.learned_variance = self_condition, learned_variance
        self.rows, columns = patch_grid(self.image_size, patch_size)

        self.embed_time = TimeEmbedding(latent_dim, latent_dim, time_scale)
        self.embed_label = LabelEmbedding(num_classes, latent_dim)
        self.embed_patches = nn.Linear(patch_size**2 * channels * (2 if self_condition else 1), dim)
        self.positions = nn.Parameter(torch.randn(self.rows * columns, dim))
        self.first_latents = nn.Parameter(torch.randn(num_latents, latent_dim))
        self.warm_start = WarmStart(latent_dim)
        self.blocks = nn.ModuleList(RINBlock(dim, latent_dim, depth, heads) for _ in range(blocks))
        self.norm_out = nn.LayerNorm(dim)
        self.to_patches = zero_init(nn.Linear(dim, patch_size**2 * channels * (2 if learned_variance else 1)))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        self_cond: Tensor | None = None,
        latents: Tensor | None = None,
        labels: Tensor | None = None,
        return_latents: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The output for noisy images, and the latents to carry to the next call.

        Args:
            x: [batch, channels, height, width].
            time: [batch], in [0, 1] (or another range, to go with time_scale).
            self_cond: Last estimate of the clean images in [-1, 1], shaped like x; None (no estimate yet) is zeros.
            latents: [batch, num_latents, latent_dim] of the call before; None (no such call) is zeros. The caller
                detaches them, as `NetworkDenoiser` does.
            labels: [batch] integers in [0, num_classes], for a network with classes.
            return_latents: Whether to return the latents as well.

        Returns:
            [batch, channels, height, width], or twice the channels with learned_variance; with return_latents, that and
            the latents [batch, num_latents, latent_dim].
        """
        if self.self_condition:
            x = torch.cat([x, torch.zeros_like(x) if self_cond is None else self_cond], dim=1)
        interface = self.embed_patches(patchify(x, self.patch_size)) + self.positions

        if latents is None:
            latents = self.first_latents.new_zeros(len(x), *self.first_latents.shape)
        latents = self.first_latents + self.warm_start(latents)
        label = self.embed_label(labels)
        conditions = [self.embed_time(time), *([] if label is None else [label])]
        latents = torch.cat([latents, torch.stack(conditions, dim=1)], dim=1)

        for block in self.blocks:
            latents, interface = block(latents, interface)
        out = unpatchify(self.to_patches(self.norm_out(interface)), self.patch_size, self.rows)
        return (out, latents[:, : -len(conditions)]) if return_latents else out


class WarmStart(nn.Module):
    """The last latents, projected and normalised, with a scale that starts at 0: [batch, n, dim] -> the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = MLP(dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.norm.weight)

    def forward(self, latents: Tensor) -> Tensor:
        return self.norm(latents + self.mlp(latents))


class RINBlock(nn.Module):
    """The latents read from the interface, compute, and write back (Jabri et al. 2022, fig. 3).

    [batch, m, latent_dim], [batch, n, dim] -> the same.
    """

    def __init__(self, dim: int, latent_dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.read = TransformerLayer(latent_dim, heads, dim)
        self.compute = nn.Sequential(*(TransformerLayer(latent_dim, heads) for _ in range(depth)))
        self.write = TransformerLayer(dim, heads, latent_dim)

    def forward(self, latents: Tensor, interface: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.compute(self.read(latents, interface))
        return latents, self.write(interface, latents)


class TransformerLayer(nn.Module):
    """Attention and an MLP, each on normalised tokens and added to them; with dim_seen, attention to other tokens."""

    def __init__(self, dim: int, heads: int, dim_seen: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_seen = nn.LayerNorm(dim_seen) if dim_seen is not None else None
        self.attention = TokenAttention(dim, heads, dim_seen)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm(x), None if self.norm_seen is None else self.norm_seen(seen))
        return x + self.mlp(self.norm_mlp(x))
