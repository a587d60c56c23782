"""`LatentSpace`: images, mapped to the latents of a frozen autoencoder."""

import copy
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from typing_extensions import Self

from ..parts.type_checks import typed
from .base import DataSpace, at_least_float32
from .images import ImageSpace
from .unbounded import Unbounded


@final
class LatentSpace(DataSpace):
    """Space of images, encoded as standardised latents of an autoencoder (Rombach et al. 2022).

    `prepare` encodes images as latents, which may be cached. The autoencoder is frozen and stays
    in evaluation mode. Copies of the space, such as that of the EMA, share it.

    Args:
        autoencoder: Autoencoder with two methods: `encode` maps images [batch, channels, height,
            width] in [-1, 1] to latents, `decode` maps latents to images; both return a tensor.
        statistics: `Unbounded` with mean and standard deviation of latents; None to fit one of
            each for every channel.
    """

    prepares = True
    flips = True  # of images, before `prepare`

    def __init__(self, autoencoder: nn.Module, statistics: Unbounded | None = None) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.images = ImageSpace()
        self.statistics = statistics if statistics is not None else Unbounded()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.autoencoder.eval()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied: Self = object.__new__(type(self))
        memo[id(self)] = copied
        memo[id(self.autoencoder)] = self.autoencoder
        copied.__dict__.update(
            {name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()}
        )
        return copied

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.statistics.build(sample_shape)

    @property
    def needs_fit(self) -> bool:
        return self.statistics.needs_fit

    def observe(self, data: Tensor, condition: Mapping[str, Any]) -> None:
        self.statistics.observe(data, condition)

    def finish(self) -> None:
        self.statistics.finish()

    @torch.no_grad()
    @typed
    def prepare(
        self, data: Shaped[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch *latent"]:
        """Encodes images, in the range of `ImageSpace`, as latents."""
        return self._through(self.autoencoder.encode, self.images.encode(data, {}))

    def encode(self, data: Tensor, condition: Mapping[str, Any]) -> Tensor:
        return self.statistics.encode(data, condition)

    @typed
    def decode(
        self, x0: Float[Tensor, "batch *latent"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch channels height width"]:
        """Decodes standardised latents to images in [0, 1]."""
        latents = self.statistics.decode(x0, condition)
        return self.images.decode(self._through(self.autoencoder.decode, latents), condition)

    @typed
    def prepare_mask(
        self, mask: Bool[Tensor, "batch *counted"], shape: tuple[int, ...]
    ) -> Bool[Tensor, "batch *encoded"]:
        """Maps a loss mask of pixels [batch, channels, height, width] to a mask of latents.

        A latent counts if all pixels that it covers count, in all channels.
        """
        if mask.ndim == 1:
            return mask
        if mask.ndim != 1 + len(shape):
            raise ValueError(
                "Expected a mask [batch] or [batch, channels, height, width], "
                f"got {[*mask.shape]}. Fix: expand it to the shape of the images."
            )
        left_out = (~mask).any(dim=1, keepdim=True).float()
        counted = nn.functional.adaptive_max_pool2d(left_out, shape[-2:]) == 0
        return counted.expand(-1, *shape)

    def pictures(self, data: Tensor) -> Tensor | None:
        return self.images.pictures(data)

    def _through(self, half: Any, values: Tensor) -> Tensor:
        dtype = next((p.dtype for p in self.autoencoder.parameters()), values.dtype)
        result = half(values.to(dtype))
        if not isinstance(result, Tensor):
            raise ValueError(
                f"Expected a tensor from the autoencoder's {half.__name__}, got "
                f"{type(result).__name__}. Fix: wrap it so that encode and decode return tensors."
            )
        return at_least_float32(result)
