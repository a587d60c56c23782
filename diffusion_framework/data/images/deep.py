"""Grey images of more than 8 bits per pixel: integers of 16 or 32 bits, and floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

BITS_PER_SAMPLE_TAG = 258  # in TIFF
_BLOCK = 2**20  # values scaled at a time
MAX_VALUE = {8: 255, 16: 65535}  # number of bits -> largest unsigned integer


class ValueRangeError(ValueError):
    """Raised for an image with values outside the expected range, on one line."""


class LostDepthError(ValueError):
    """Raised for an image of more than 8 bits of which Pillow keeps only 8, on one line."""


def check_kept(image: Image.Image, name: str) -> None:
    """Raises LostDepthError for an opened image that would silently lose its depth.

    Args:
        image: Opened image.
        name: Quoted name of its file.
    """
    depth = 8 if is_deep(image) else _DEPTHS.get(image.format or "", lambda image: 8)(image)
    if depth > 8:
        raise LostDepthError(
            f"Expected colours whose depth Pillow keeps, got {name} of {depth} bits in "
            f"{image.format}. Fix: set --data.bits 8 to reduce it, or convert the file to PNG."
        )


def shift(image: Image.Image) -> int:
    """Returns the bits by which Pillow shifts the values of an opened image to the left."""
    if image.format != "JPEG2000" or not is_deep(image):
        return 0
    return max(0, 16 - _depth_of_jpeg2000(image))


def shifted(image: Image.Image, shift: int) -> Image.Image:
    """Returns an image of 16 bits with its values as in the file; see `shift`."""
    return Image.fromarray(np.asarray(image) >> shift)


def _depth_of_ppm(image: Any) -> int:
    scaled = [tile.args[1] for tile in image.tile if tile.codec_name in ("ppm", "ppm_plain")]
    return max(scaled, default=255).bit_length()


def _depth_of_sgi(image: Any) -> int:
    return 16 if any(tile.codec_name == "SGI16" for tile in image.tile) else 8


def _depth_of_jpeg2000(image: Any) -> int:
    head = _head(image)
    start = head.find(b"\xff\x4f\xff\x51") + 40  # number of channels, then 3 bytes for each
    channels = int.from_bytes(head[start : start + 2], "big") if start >= 40 else 0
    return max(((1 + (depth & 127)) for depth in head[start + 2 :: 3][:channels]), default=8)


def _depth_of_avif(image: Any) -> int:
    head = _head(image)
    flags = head[start + 6] if 0 <= (start := head.find(b"av1C")) < len(head) - 6 else 0
    return (12 if flags & 32 else 10) if flags & 64 else 8


def _head(image: Any, size: int = 2**16) -> bytes:
    """Returns the first bytes of an opened file."""
    position = image.fp.tell()
    image.fp.seek(0)
    head = image.fp.read(size)
    image.fp.seek(position)
    return head


_DEPTHS: dict[str, Callable[[Any], int]] = {
    "PPM": _depth_of_ppm,
    "SGI": _depth_of_sgi,
    "JPEG2000": _depth_of_jpeg2000,
    "AVIF": _depth_of_avif,
}


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image has more than 8 bits per channel (mode I, I;16 or F)."""
    return image.mode == "F" or image.mode.startswith("I")


def scale_values(
    image: Image.Image | np.ndarray,
    value_range: tuple[float, float] | None = None,
    file_bits: int = 16,
    bits: int = 8,
    dtype: type[np.generic] = np.float64,
) -> np.ndarray:
    """Scales the values of an image to [0, 2^bits - 1], equally for every image.

    NaN becomes the lower end, infinities the end of their sign.

    Args:
        image: Image of mode I, I;16 or F, or an array of any shape.
        value_range: Smallest and largest value of all images; None for [0, 1] for floats and
            [0, 2^file_bits - 1] for integers.
        file_bits: Bits of an integer in the file; more than 16 count as 16.
        bits: 8 or 16.
        dtype: Type of the result; integers are rounded. Blocks of the image are scaled in float64,
            so that a large one takes little memory.

    Returns:
        Values in the shape of the image.

    Raises:
        ValueRangeError: values outside `value_range`.
    """
    stored = np.asarray(image)
    largest = 1.0 if stored.dtype.kind in "fb" else 2.0 ** min(file_bits, 16) - 1
    low, high = value_range or (0.0, largest)
    _check_range(stored, low, high)
    scaled = np.empty(stored.shape, dtype)
    flat, result = stored.reshape(-1), scaled.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        values = np.nan_to_num(flat[block].astype(np.float64), nan=low, posinf=high, neginf=low)
        values = np.clip((values - low) * (MAX_VALUE[bits] / (high - low)), 0, MAX_VALUE[bits])
        result[block] = np.rint(values) if scaled.dtype.kind == "u" else values
    return scaled


def _check_range(stored: np.ndarray, low: float, high: float) -> None:
    """Raises ValueRangeError for finite values below `low` or above `high`."""
    smallest, largest, flat = math.inf, -math.inf, stored.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        finite = block[np.isfinite(block)]
        if finite.size:
            smallest, largest = min(smallest, finite.min()), max(largest, finite.max())
    slack = 1e-5 * (high - low)  # rounding error of floats
    if smallest < low - slack or largest > high + slack:
        raise ValueRangeError(
            f"Expected values in [{low:g}, {high:g}], got {smallest:g} to {largest:g}. "
            "Fix: give the range of all images, --data.value_range lo,hi or value_range=(lo, hi)."
        )


def transparency_mask(image: Image.Image) -> np.ndarray | None:
    """Returns where pixels have the value declared transparent; None if the file declares none."""
    value = image.info.get("transparency")
    return None if value is None else np.asarray(image) == value


def to_eight_bits(
    image: Image.Image, value_range: tuple[float, float] | None, file_bits: int
) -> Image.Image:
    """Converts a deep image to mode L, or to RGBA if its file declares one value transparent."""
    grey = Image.fromarray(scale_values(image, value_range, file_bits, dtype=np.uint8))
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
    values = scale_values(image, value_range, file_bits, bits=16, dtype=np.float32)
    if (hidden := transparency_mask(image)) is not None:
        values[hidden] = 257 * np.asarray(Image.new("RGB", (1, 1), background).convert("L")).item()
    return Image.fromarray(values)
