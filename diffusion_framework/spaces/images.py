"""`ImageSpace`: images of a known range, mapped to [-1, 1]."""

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..parts.type_checks import typed
from .base import DataSpace, at_least_float32, checked_range

LARGEST = {torch.uint8: 255.0, torch.uint16: 65535.0}
"""Largest value of each integer dtype that images may have; it stands for 1."""


@final
class ImageSpace(DataSpace):
    """Space of images, whose value range is mapped to [-1, 1]; samples are clipped to the range.

    Without a `value_range`, floats must lie in [0, 1], and uint8 and uint16 images use the whole
    range of their dtype. `decode` then returns [0, 1].

    Args:
        value_range: Smallest and largest value of the data, such as (0, 4095) for 12-bit images or
            (270, 310) for temperatures; None for [0, 1] for floats and the range of the dtype for
            uint8 and uint16.
        bins: Number of values that one element can take, evenly spaced over the range; None for
            continuous data.

    Raises:
        ValueError: a range that does not rise, or fewer than two bins.
    """

    bounds = (-1.0, 1.0)
    sigma_data = 0.5
    flips = True

    def __init__(
        self, value_range: tuple[float, float] | None = None, bins: int | None = 256
    ) -> None:
        super().__init__()
        if value_range is not None:
            low, high = value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(
                    f"Expected value_range to rise, got {low:g}, {high:g}. "
                    "Fix: give the smallest value first."
                )
            value_range = (float(low), float(high))
        if bins is not None and bins < 2:
            raise ValueError(
                f"Expected at least 2 bins, got {bins}. Fix: take None for continuous data."
            )
        self.value_range, self.bins = value_range, bins

    @typed
    def encode(
        self, data: Shaped[Tensor, "batch *shape"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch *shape"]:
        """Maps images [batch, ...] to [-1, 1]; see `DataSpace.encode`."""
        low, high = self._range(data.dtype)
        images = at_least_float32(data)
        if self.value_range is not None or data.is_floating_point():  # integers fill their range
            remedy = (
                "scale the data, or give its range: value_range=(lo, hi), --data.value_range lo,hi"
            )
            images = checked_range(images, low, high, remedy)
        return (images - low) / ((high - low) / 2) - 1

    @typed
    def decode(
        self, x0: Float[Tensor, "batch *shape"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch *shape"]:
        """Maps [-1, 1] to the value range, or to [0, 1] without one, and clips to it."""
        low, high = self.value_range or (0.0, 1.0)
        return ((x0 + 1) / 2 * (high - low) + low).clamp(low, high)

    def bits_offset(self) -> float:
        low, high = self.value_range or (0.0, 1.0)
        return math.log2((high - low) / 2)

    def pictures(self, data: Tensor) -> Tensor | None:
        """Returns images in [0, 1]: of 2 channels the first, of more than 4 the first 3."""
        if data.ndim != 4:
            return None
        if data.shape[1] not in (1, 3, 4):
            data = data[:, : 3 if data.shape[1] > 4 else 1]
        low, high = self._range(data.dtype)
        return ((at_least_float32(data) - low) / (high - low)).clamp(0, 1)

    def _range(self, dtype: torch.dtype) -> tuple[float, float]:
        """Returns the values of data of this dtype that are mapped to -1 and 1."""
        if self.value_range is not None:
            return self.value_range
        if dtype.is_floating_point:
            return 0.0, 1.0
        if dtype not in LARGEST:
            raise ValueError(
                f"Expected floats in [0, 1], uint8 or uint16, got {dtype}. "
                "Fix: give the range of the data: value_range=(lo, hi), --data.value_range lo,hi."
            )
        return 0.0, LARGEST[dtype]
