"""`Images`, a conditioner for images."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from ..spaces import DataSpace, ImageSpace
from ..spaces.base import flipped
from .base import Conditioner, Keywords, as_tensor
from .warp import Warp


@final
class Images(Conditioner):
    """Conditioner for images, which are encoded and resized to the size of the samples.

    The network concatenates them to x along channels. "None" is an image of zeros, which is
    mid-gray. A value has shape [batch, channels, height, width]. When sampling, a single image
    [channels, height, width] is repeated for the batch.

    With noise, training adds noise of a random level to each image, and a further channel tells the
    network the level (Ho et al. 2021, "Cascaded diffusion models", conditioning augmentation). An
    encoded image y becomes sqrt(1 - s²) y + s eps with s uniform in [0, noise].

    Args:
        channels: Number of channels of encoded images.
        space: Data space that encodes the images, with statistics of its own; None for
            `ImageSpace()`.
        dropout: Share of training samples whose value is replaced by "none"; above 0 for guidance.
        keyword: Keyword of the network for the images.
        noise: Largest level of the noise in training, in [0, 1); 0 adds none. With noise, the
            network takes channels + 1.
        sampling_noise: Level of the noise when sampling, in [0, noise]. Its noise is the same for
            all samples.

    Raises:
        ValueError: If a level or dropout is out of range.
    """

    flips = True

    def __init__(
        self,
        channels: int = 3,
        *,
        space: DataSpace | None = None,
        dropout: float = 0.0,
        keyword: str = "image",
        noise: float = 0.0,
        sampling_noise: float = 0.0,
    ) -> None:
        super().__init__((keyword,), dropout)
        if not 0 <= noise < 1:
            raise ValueError(f"Expected noise in [0, 1), got {noise}. Fix: try 0.3.")
        if not 0 <= sampling_noise <= noise:
            raise ValueError(
                f"Expected sampling_noise in [0, {noise}], got {sampling_noise}. "
                "Fix: lower it, or raise noise, its largest level in training."
            )
        self.noise, self.sampling_noise = noise, sampling_noise
        self.channels = channels
        self.space = space if space is not None else ImageSpace()
        self.size: tuple[int, int] | None = None

    def build(self, sample_shape: tuple[int, ...]) -> None:
        if len(sample_shape) != 3:
            raise ValueError(
                "Expected samples (channels, height, width) for a condition on images, got "
                f"{tuple(sample_shape)}. "
                "Fix: use Vectors or Tokens for samples that are not images."
            )
        self.size = (sample_shape[1], sample_shape[2])
        self.space.build((self.channels, *self.size))

    def repeat(self, value: Any, batch: int) -> Any:
        images = as_tensor(value, self.device, "images")
        return images.expand(batch, *images.shape) if images.ndim == 3 else images

    def encode(self, value: Any) -> Keywords:
        """Encodes images and resizes them to the sample's height and width."""
        images = as_tensor(value, self.device, "images")
        if images.ndim != 4:
            raise ValueError(
                f"Expected images [batch, channels, height, width], got {[*images.shape]}. "
                "Fix: pass one image for each sample."
            )
        encoded = self.space.encode(self.space.prepare(images), {})
        if encoded.shape[1] != self.channels:
            raise ValueError(
                f"Expected images of {self.channels} channels, got {encoded.shape[1]}. "
                f"Fix: use Images(channels={encoded.shape[1]}), or convert the images."
            )
        if self.size is not None and encoded.shape[2:] != self.size:
            encoded = nn.functional.interpolate(encoded, self.size, mode="bilinear", antialias=True)
        return {self.keywords[0]: encoded}

    def augment(
        self, encoded: Keywords, training: bool, generator: torch.Generator | None
    ) -> Keywords:
        """Adds noise and the channel of its level, if there is noise in training."""
        if not self.noise:
            return encoded
        image = encoded[self.keywords[0]]
        if training:
            options: Any = {"generator": generator, "device": image.device, "dtype": image.dtype}
            level = self.noise * torch.rand(len(image), 1, 1, 1, **options)
            eps = torch.randn(image.shape, **options)
        else:
            level = image.new_full((len(image), 1, 1, 1), self.sampling_noise)
            fixed = torch.Generator().manual_seed(0)  # alike in every batch and on every device
            eps = torch.randn(image.shape[1:], generator=fixed).to(image)
        noised = (1 - level**2).sqrt() * image + level * eps
        told = level.expand(-1, 1, *image.shape[2:])
        return {self.keywords[0]: torch.cat([noised, told], dim=1)}

    def none(self, batch: int) -> Keywords:
        size = (0, 0) if self.size is None else self.size
        channels = self.channels + (self.noise > 0)
        return {self.keywords[0]: torch.zeros(batch, channels, *size, device=self.device)}

    def warp(self, encoded: Keywords, warp: Warp) -> Keywords:
        return {keyword: warp(image) for keyword, image in encoded.items()}

    def flip(self, value: Any, where: Tensor) -> Tensor:
        return flipped(torch.as_tensor(value, device=where.device), where)

    def pictures(self, value: Any) -> Tensor | None:
        return self.space.pictures(torch.as_tensor(value))

    @property
    def needs_fit(self) -> bool:
        return self.space.needs_fit

    def observe(self, value: Any) -> None:
        self.space.observe(self.space.prepare(as_tensor(value, self.device, "images")), {})

    def finish(self) -> None:
        self.space.finish()
