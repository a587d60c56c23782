"""`Augmentation`, transformations of training images that the network is told."""

from __future__ import annotations

import math
from typing import Any, final

import torch

from .base import Conditioner, Keywords, as_tensor
from .warp import Warp, product, rotation, scaling

AUGMENTATION_SIZE = 9
_SCALE, _ANISOTROPY, _SHIFT = 2**0.2, 2**0.2, 1 / 8  # at one standard deviation


@final
class Augmentation(Conditioner):
    """Non-leaky augmentation: training transforms images, and tells the network how.

    Samples show images as they are, since the network is told no transformation when sampling. It
    lets small data sets be trained for longer (Karras et al. 2022, "Elucidating the design space",
    app. F.2).

    Training mirrors horizontally and vertically, scales, rotates, stretches and shifts, each with
    the same probability. The value is drawn, so it is never given in training. The network takes
    the keyword argument `augmentation`, [batch, 9], with zeros for an image as it is; None must
    mean the same.

    When sampling, the value is nine numbers, [9] or [batch, 9]: 1 if mirrored horizontally, 1 if
    vertically, the scale in fifths of an octave, cos(a) - 1 and sin(a) of a counter-clockwise
    rotation, the stretch in fifths of an octave times cosine and sine of twice the clockwise angle
    of its axis (with the paper's angle itself, two stretches would share their numbers), and the
    shift to the right and down in eighths of the image.

    Args:
        probability: Probability of each transformation, in [0, 1]; 0.12 to 0.15 suit many data
            sets.

    Raises:
        ValueError: probability out of range.
    """

    augments, flips = True, True

    def __init__(self, probability: float = 0.12) -> None:
        super().__init__(("augmentation",))
        if not 0 <= probability <= 1:
            raise ValueError(
                f"Expected a probability of augmentation in [0, 1], got {probability}. "
                "Fix: take 0.12, or 0 for none."
            )
        self.probability = probability

    def build(self, sample_shape: tuple[int, ...]) -> None:
        if len(sample_shape) != 3:
            raise ValueError(
                "Expected samples (channels, height, width) for augmentation, got "
                f"{tuple(sample_shape)}. Fix: leave it out for samples that are not images."
            )

    def repeat(self, value: Any, batch: int) -> Any:
        numbers = as_tensor(value, self.device, "numbers of an augmentation")
        return numbers.expand(batch, -1) if numbers.ndim == 1 else numbers

    def encode(self, value: Any) -> Keywords:
        """Converts numbers [batch, 9] to float32."""
        numbers = as_tensor(value, self.device, "numbers of an augmentation").float()
        if numbers.ndim != 2 or numbers.shape[1] != AUGMENTATION_SIZE:
            raise ValueError(
                f"Expected an augmentation [batch, {AUGMENTATION_SIZE}], got "
                f"{[*numbers.shape]}. Fix: leave it out for images as they are."
            )
        return {"augmentation": numbers}

    def none(self, batch: int) -> Keywords:
        return {"augmentation": torch.zeros(batch, AUGMENTATION_SIZE, device=self.device)}

    def warp(self, encoded: Keywords, warp: Warp) -> Keywords:
        return {"augmentation": warp.numbers}

    def draw(
        self, batch: int, device: torch.device, generator: torch.Generator | None
    ) -> Warp | None:
        """Draws a transformation for each image of a batch, or none with probability 0."""
        if not self.probability:
            return None
        options: Any = {"generator": generator, "device": device}
        chosen = torch.rand(6, batch, **options) < self.probability
        coins = torch.rand(2, batch, **options) < 0.5
        turn, direction = (2 * torch.rand(2, batch, **options) - 1) * math.pi
        scale, stretch, right, down = torch.randn(4, batch, **options)
        mirrored_x, mirrored_y = (chosen[:2] & coins).float()
        scale, turn, stretch = scale * chosen[2], turn * chosen[3], stretch * chosen[4]
        shift = torch.stack([right, down], dim=1) * chosen[5][:, None]
        size, longer = _SCALE**scale, _ANISOTROPY**stretch
        along = rotation(direction)
        inverse = product(
            scaling((1 - 2 * mirrored_x) / size, (1 - 2 * mirrored_y) / size),
            rotation(turn),
            along,
            scaling(1 / longer, longer),
            along.mT,
        )
        told = [mirrored_x, mirrored_y, scale, turn.cos() - 1, turn.sin()]
        told += [stretch * (2 * direction).cos(), stretch * (2 * direction).sin()]
        numbers = torch.cat([torch.stack(told, dim=1), shift], dim=1)
        return Warp(numbers, inverse, shift * _SHIFT)
