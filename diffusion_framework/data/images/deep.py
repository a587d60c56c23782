"""Grey images of more than 8 bits per pixel: integers of 16 or 32 bits, and floats."""

from __future__ import annotations

import numpy as np
from PIL import Image

BITS_PER_SAMPLE_TAG = 258  # in TIFF
MAX_VALUE = {8: 255, 16: 65535}  # number of bits -> largest unsigned integer


class ValueRangeError(ValueError):
    """Raised for an image with values outside the expected range, on one line."""


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image has more than 8 bits per channel (mode I, I;16 or F)."""
    return image.mode == "F" or image.mode.startswith("I")


def scale_values(
    image: Image.Image | np.ndarray,
    value_range: tuple[float, float] | None = None,
    file_bits: int = 16,
    bits: int = 8,
) -> np.ndarray:
    """Scales the values of an image to [0, 2^bits - 1], equally for every image.

    NaN becomes the lower end, infinities the end of their sign.

    Args:
        image: Image of mode I, I;16 or F, or an array of any shape.
        value_range: Smallest and largest value of all images; None for [0, 1] for floats and
            [0, 2^file_bits - 1] for integers.
        file_bits: Bits of an integer in the file; more than 16 count as 16.
        bits: 8 or 16.

    Returns:
        Unrounded float64 values, in the shape of the image.

    Raises:
        ValueRangeError: values outside `value_range`.
    """
    stored = np.asarray(image)
    largest = 1.0 if stored.dtype.kind in "fb" else 2.0 ** min(file_bits, 16) - 1
    low, high = value_range or (0.0, largest)
    values = stored.astype(np.float64)
    finite = values[np.isfinite(values)]
    slack = 1e-5 * (high - low)  # rounding error of floats
    if finite.size and (finite.min() < low - slack or finite.max() > high + slack):
        raise ValueRangeError(
            f"Expected values in [{low:g}, {high:g}], got {finite.min():g} to {finite.max():g}. "
            "Fix: give the range of all images, --data.value_range lo,hi or value_range=(lo, hi)."
        )
    values = np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    return np.clip((values - low) * (MAX_VALUE[bits] / (high - low)), 0, MAX_VALUE[bits])


def transparency_mask(image: Image.Image) -> np.ndarray | None:
    """Returns where pixels have the value declared transparent; None if the file declares none."""
    value = image.info.get("transparency")
    return None if value is None else np.asarray(image) == value


def to_eight_bits(
    image: Image.Image, value_range: tuple[float, float] | None, file_bits: int
) -> Image.Image:
    """Converts a deep image to mode L, or to RGBA if its file declares one value transparent."""
    grey = Image.fromarray(np.rint(scale_values(image, value_range, file_bits)).astype(np.uint8))
    if (hidden := transparency_mask(image)) is None:
        return grey
    with_alpha = grey.convert("RGBA")
    with_alpha.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return with_alpha


def to_sixteen_bits(
    image: Image.Image,
    value_range: tuple[float, float] | None,
    file_bits: int,
    background: tuple[int, int, int],
) -> Image.Image:
    """Converts a deep image to mode F with values in 0..65535.

    Transparent pixels get the grey of `background` (red, green and blue in 0..255).
    """
    values = scale_values(image, value_range, file_bits, bits=16)
    if (hidden := transparency_mask(image)) is not None:
        values[hidden] = 257 * np.asarray(Image.new("RGB", (1, 1), background).convert("L")).item()
    return Image.fromarray(values.astype(np.float32))
