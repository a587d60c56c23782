"""`Images`: an image that a network sees beside the noised one."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from ..spaces import DataSpace, ImageSpace
from .base import Conditioner, Keywords, as_tensor


@final
class Images(Conditioner):
    """Images [batch, channels, height, width], encoded and resized to the sample's height and width.

    The network concatenates them to x along channels. "None" is an image of zeros, mid-gray. Takes
    one image [channels, height, width] for a whole batch, too.

    Args:
        channels: Channels of encoded images.
        space: How images are encoded; None is `ImageSpace()`. Its fitted statistics are its own.
        dropout: Share of training samples that are told "none"; above 0 for guidance.
        keyword: The network's keyword.
    """

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
                f"Expected samples (channels, height, width) to put images beside, got {tuple(sample_shape)}. "
                "Fix: use Vectors or Tokens for samples that are not images."
            )
        self.size = (sample_shape[1], sample_shape[2])
        self.space.build((self.channels, *self.size))

    def repeat(self, value: Any, batch: int) -> Any:
        images = as_tensor(value, self.device, "images")
        return images.expand(batch, *images.shape) if images.ndim == 3 else images

    def encode(self, value: Any) -> Keywords:
        """[batch, channels, height, width] of the encoded images, in the sample's height and width."""
        images = as_tensor(value, self.device, "images")
        if images.ndim != 4:
            raise ValueError(
                f"Expected images [batch, channels, height, width], got {[*images.shape]}. "
                "Fix: give one image for each sample."
            )
        encoded = self.space.encode(self.space.prepare(images), {})
        if encoded.shape[1] != self.channels:
            raise ValueError(
                f"Expected images of {self.channels} channels, got {encoded.shape[1]}. "
                f"Fix: Images(channels={encoded.shape[1]}), or convert the images."
            )
        if self.size is not None and encoded.shape[2:] != self.size:
            encoded = nn.functional.interpolate(encoded, self.size, mode="bilinear", antialias=True)
        return {self.keywords[0]: encoded}

    def none(self, like: Keywords) -> Keywords:
        return {keyword: torch.zeros_like(image) for keyword, image in like.items()}

    def flip(self, value: Any, where: Tensor) -> Tensor:
        images = torch.as_tensor(value, device=where.device)
        return torch.where(where.reshape(-1, 1, 1, 1), images.flip(-1), images)

    def pictures(self, value: Any) -> Tensor | None:
        return self.space.pictures(torch.as_tensor(value))

    @property
    def needs_fit(self) -> bool:
        return self.space.needs_fit

    def observe(self, value: Any) -> None:
        self.space.observe(self.space.prepare(as_tensor(value, self.device, "images")), {})

    def finish(self) -> None:
        self.space.finish()
