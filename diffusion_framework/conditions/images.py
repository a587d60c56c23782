"""`Images`, a conditioner for images."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from ..spaces import DataSpace, ImageSpace
from ..spaces.base import flipped
from .base import Conditioner, Keywords, as_tensor


@final
class Images(Conditioner):
    """Conditioner for images, which are encoded and resized to the size of the samples.

    The network concatenates them to x along channels. "None" is an image of zeros, which is
    mid-gray. A value has shape [batch, channels, height, width]. When sampling, a single image
    [channels, height, width] is repeated for the batch.

    Args:
        channels: Number of channels of encoded images.
        space: Data space that encodes the images, with statistics of its own; None for
            `ImageSpace()`.
        dropout: Share of training samples whose value is replaced by "none"; above 0 for guidance.
        keyword: Keyword of the network for the images.
    """

    flips = True

    def __init__(
        self,
        channels: int = 3,
        *,
        space: DataSpace | None = None,
        dropout: float = 0.0,
        keyword: str = "image",
    ) -> None:
        super().__init__((keyword,), dropout)
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

    def none(self, batch: int) -> Keywords:
        size = (0, 0) if self.size is None else self.size
        return {self.keywords[0]: torch.zeros(batch, self.channels, *size, device=self.device)}

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
