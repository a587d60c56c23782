"""Grey pictures of more than 8 bits: whole numbers of 16 or 32 bits, and floats."""

from __future__ import annotations

import numpy as np
from PIL import Image

BITS_PER_SAMPLE = 258  # TIFF tag
LEVELS = {8: 255, 16: 65535}  # the largest value of so many bits


class ValueRangeError(ValueError):
    """A picture's values do not lie in the range that they should; the message is one line."""


def is_deep(image: Image.Image) -> bool:
    """Whether a picture has values of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def scaled(
    image: Image.Image, value_range: tuple[float, float] | None = None, file_bits: int = 16, bits: int = 8
) -> np.ndarray:
    """Values of a deep picture on one scale, the same for every picture: float64, 0 to 2^bits - 1, not rounded.

    Without a range, whole numbers run from 0 to the largest of their bits, and floats from 0 to 1. Not-a-number
    becomes the lower end, an infinity the end on its side.

    Args:
        image: Mode I, I;16, or F.
        value_range: The smallest and the largest value of all pictures.
        file_bits: Bits of whole numbers in the file.
        bits: 8 or 16.

    Raises:
        ValueRangeError: values out of range.
    """
    values = np.asarray(image).astype(np.float64)
    low, high = value_range or (0.0, 1.0 if image.mode == "F" else 2.0 ** min(file_bits, 16) - 1)
    finite = values[np.isfinite(values)]
    slack = 1e-5 * (high - low)  # what a float is off by rounding
    if finite.size and (finite.min() < low - slack or finite.max() > high + slack):
        raise ValueRangeError(
            f"Expected values in [{low:g}, {high:g}], got {finite.min():g} to {finite.max():g}. "
            "Fix: name the range of all pictures: --data.value_range lo,hi (value_range=(lo, hi))."
        )
    values = np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    return np.clip((values - low) * (LEVELS[bits] / (high - low)), 0, LEVELS[bits])


def transparent(image: Image.Image) -> np.ndarray | None:
    """Where a picture has the one value that its file calls transparent; None for a file without."""
    value = image.info.get("transparency")
    return None if value is None else np.asarray(image) == value


def to_eight_bits(image: Image.Image, value_range: tuple[float, float] | None, file_bits: int) -> Image.Image:
    """A deep picture as mode L, or RGBA if one value means transparent."""
    grey = Image.fromarray(np.rint(scaled(image, value_range, file_bits)).astype(np.uint8))
    if (hidden := transparent(image)) is None:
        return grey
    with_alpha = grey.convert("RGBA")
    with_alpha.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return with_alpha


def to_sixteen_bits(
    image: Image.Image, value_range: tuple[float, float] | None, file_bits: int, background: tuple[int, int, int]
) -> Image.Image:
    """A deep picture as mode F, values 0 to 65535; what is transparent shows the grey of the background."""
    values = scaled(image, value_range, file_bits, bits=16)
    if (hidden := transparent(image)) is not None:
        values[hidden] = 257 * np.asarray(Image.new("RGB", (1, 1), background).convert("L")).item()
    return Image.fromarray(values.astype(np.float32))
