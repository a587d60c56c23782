"""Images that Pillow cannot hold: many channels, and colours of more than 8 bits.

Each channel is an image of mode F with values in 0..65535.
"""

from __future__ import annotations

import io
import lzma
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...parts.extras import MissingPackage, require
from . import deep
from .decode import (
    DECODING_ERRORS,
    ORIENTATION_TAG,
    UPRIGHT_TRANSPOSES,
    BrokenImageError,
    quoted_name,
    reason,
)
from .limits import check_effort, check_pixels

GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue (ITU-R BT.601), as in Pillow
_PNG, _PPM, _TIFF = b"\x89PNG\r\n\x1a\n", b"P6", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DECOMPRESSORS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
_CONVERTED = (1, 3, 4)  # grey, RGB and RGBA
_COLOUR_TYPES = (2, 4, 6)  # in PNG: RGB, grey with alpha, RGB with alpha
_PHOTOMETRIC_TAG, _GREY_OR_RGB = 262, (1, 2)

Source = str | os.PathLike[str] | BinaryIO


def needs_planes(source: Source, keeps_depth: bool = True) -> bool:
    """Returns whether Pillow cannot hold an image, from the header of its file alone.

    Args:
        source: Path of the file, or a binary file object.
        keeps_depth: Whether the image must keep more than 8 bits of several channels.
    """
    try:
        head = _read(source, 26)
        if head.startswith(_PNG):
            return keeps_depth and len(head) == 26 and head[24] == 16 and head[25] in _COLOUR_TYPES
        if head.startswith(_PPM):
            return keeps_depth and _is_deep_ppm(source)
        if not head.startswith(_TIFF):
            return False
    except OSError:  # reported when the image is decoded
        return False
    try:
        with Image.open(source, formats=["TIFF"]) as image:
            tags: Any = image.getexif()
            sizes = tags.get(deep.BITS_PER_SAMPLE_TAG, ())
            several = isinstance(sizes, tuple) and len(sizes) > 1 and max(sizes) > 8
            return keeps_depth and several and tags.get(_PHOTOMETRIC_TAG) in _GREY_OR_RGB
    except DECODING_ERRORS:
        return True
    finally:
        if not isinstance(source, str | os.PathLike):
            source.seek(0)


def decode_planes(
    source: Source,
    channels: int,
    background: tuple[int, int, int] = (255, 255, 255),
    value_range: tuple[float, float] | None = None,
) -> tuple[list[Image.Image], bool]:
    """Decodes a PNG, TIFF or binary PPM file into one upright image of mode F for each channel.

    Args:
        source: Path of the file, or a binary file object.
        channels: Number of channels. Grey, RGB and RGBA are converted into each other; other
            numbers must be that of the file.
        background: Red, green and blue in 0..255 behind transparent pixels.
        value_range: Smallest and largest value of all images; None for the range of their integer
            type, or [0, 1] for floats.

    Returns:
        Images with values in 0..65535, and whether the file has more than 8 bits per value.

    Raises:
        ValueRangeError: values outside `value_range`.
        BrokenImageError: the file cannot be read, or has another number of channels.
    """
    try:
        content = _read(source)
        starts = {_PNG: _read_png, _PPM: _read_ppm}
        found = (read for start, read in starts.items() if content.startswith(start))
        read = next(found, _read_tiff)
        values, orientation, has_alpha = read(content)
        has_alpha = has_alpha and channels in _CONVERTED
        converts = channels in _CONVERTED and len(values) - has_alpha in (1, 3)
        if values.ndim != 3 or not (len(values) == channels or converts):
            raise ValueError(f"it has the shape {[*values.shape]}")
        if values.dtype.kind not in "buif":
            raise ValueError(f"it has values of type {values.dtype}")
    except MissingPackage:
        raise  # the file is not broken
    except DECODING_ERRORS as error:
        raise BrokenImageError(
            f"Expected a readable image of {channels} channels, got {quoted_name(source)} "
            f"({reason(error)}). Fix: replace or remove the file, or change channels."
        ) from error
    try:
        planes = _scaled(values, value_range, has_alpha)
    except deep.ValueRangeError as error:
        raise deep.ValueRangeError(f"Image {quoted_name(source)}: {error}") from error
    planes = _with_channels(planes, channels, has_alpha, background)
    images = [Image.fromarray(plane.astype(np.float32)) for plane in planes]
    if orientation in UPRIGHT_TRANSPOSES:
        images = [image.transpose(UPRIGHT_TRANSPOSES[orientation]) for image in images]
    return images, values.dtype.itemsize > 1


def _read(source: Source, size: int = -1) -> bytes:
    """Returns the first bytes of a file, or all."""
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            return file.read(size)
    source.seek(0)
    return source.read(size)


def _read_png(content: bytes) -> tuple[np.ndarray, int, bool]:
    """Returns values [channels, height, width], the EXIF orientation, and whether one is alpha."""
    from torchvision.io import ImageReadMode, decode_png  # a slow import

    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        check_effort(image)
        check_pixels(image.width, image.height, values=len(image.getbands()))
        image.load()  # EXIF data may stand behind the pixels
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    values = decode_png(data, mode=ImageReadMode.UNCHANGED).numpy()
    return values, orientation, len(values) in (2, 4)


def _is_deep_ppm(source: Source) -> bool:
    """Returns whether a PPM file has more than 8 bits."""
    try:
        with Image.open(source, formats=["PPM"]) as image:
            tile: Any = image.tile[0]
            return tile.codec_name == "ppm" and tile.args[1] > 255
    except DECODING_ERRORS:  # reported when the image is decoded
        return False
    finally:
        if not isinstance(source, str | os.PathLike):
            source.seek(0)


def _read_ppm(content: bytes) -> tuple[np.ndarray, int, bool]:
    """Returns values [channels, height, width] scaled to 0..65535, the orientation, no alpha."""
    with Image.open(io.BytesIO(content), formats=["PPM"]) as image:
        check_effort(image)
        check_pixels(image.width, image.height, values=3)
        tile: Any = image.tile[0]
        size = image.height, image.width, 3
        if tile.codec_name != "ppm" or (largest := tile.args[1]) <= 255:
            return np.moveaxis(np.array(image), -1, 0), 1, False
    stored = np.frombuffer(content, ">u2", math.prod(size), tile.offset).reshape(size)
    scaled = np.rint(np.minimum(stored, largest) * (65535 / largest)).astype(np.uint16)
    return np.moveaxis(scaled, -1, 0), 1, False


def _read_tiff(content: bytes) -> tuple[np.ndarray, int, bool]:
    """Returns values [channels, height, width], the orientation, and whether the last is alpha.

    Channels are samples of a pixel, or pages of one size.
    """
    if content[:4] not in _TIFF:
        raise ValueError("it is not a PNG, PPM or TIFF file")
    require("tifffile", "TIFF images of many channels or 16 bits")
    from tifffile import TiffFile

    try:
        with TiffFile(io.BytesIO(content)) as file:
            page: Any = file.pages[0]
            several = page.samplesperpixel == 1 and len(file.pages) > 1
            size = file.series[0].size if several else page.size
            check_pixels(1, 1, values=size)
            check_pixels(page.tilewidth or 1, page.tilelength or 1, what="a tile of ")
            if not all(_fits(each, content) for each in (file.pages if several else [page])):
                raise ValueError("a tile or strip holds more than it declares")
            values = file.asarray() if several else page.asarray()
            samples_last = page.samplesperpixel > 1 and page.planarconfig == 1
            orientation = page.tags.valueof(ORIENTATION_TAG, 1)
            alpha = len(page.extrasamples) == 1 and page.samplesperpixel in (2, 4)
    except Exception as error:  # tifffile has many
        raise ValueError(f"{type(error).__name__} {error}") from error
    values = values[None] if values.ndim == 2 else values
    values = np.moveaxis(values, -1, 0) if samples_last else values
    return values, int(orientation), alpha


def _fits(page: Any, content: bytes) -> bool:
    """Returns whether each tile or strip of a page in a TIFF file holds no more than it declares.

    tifffile decompresses these formats without a bound.
    """
    if (make := _DECOMPRESSORS.get(int(page.compression))) is None:
        return True
    most = math.prod(page.chunks) * page.dtype.itemsize
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    return all(
        len(make().decompress(content[offset : offset + count], most + 1)) <= most
        for offset, count in segments
    )


def _scaled(
    values: np.ndarray, value_range: tuple[float, float] | None, has_alpha: bool
) -> np.ndarray:
    """Returns values [channels, height, width] scaled to 0..65535; alpha by its type alone."""
    bits = 8 * values.dtype.itemsize
    colours = values[:-1] if has_alpha else values
    scaled = [deep.scale_values(plane, value_range, bits, 16, np.float32) for plane in colours]
    alpha = [deep.scale_values(values[-1], None, bits, 16, np.float32)] if has_alpha else []
    return np.stack([*scaled, *alpha])


def _with_channels(
    planes: np.ndarray, channels: int, has_alpha: bool, background: tuple[int, int, int]
) -> np.ndarray:
    """Converts planes [channels, height, width] in 0..65535 between grey, RGB and RGBA."""
    if len(planes) == channels or channels not in _CONVERTED:
        return planes
    alpha = planes[-1] if has_alpha else np.full_like(planes[0], 65535.0)
    colours = planes[:-1] if has_alpha else planes
    if len(colours) == 1:
        colours = colours.repeat(3, axis=0)
    if channels == 4:
        return np.concatenate([colours, alpha[None]])
    behind = 257.0 * np.array(background, float).reshape(3, 1, 1)
    opaque = behind + (colours - behind) * (alpha / 65535) if has_alpha else colours
    return opaque if channels == 3 else np.tensordot(GREY, opaque, 1)[None]


def padding(channels: int, background: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Returns the grey beside a padded image for each channel; 0 for alpha and further channels."""
    if channels == 1:
        return [background]
    beside = [*background, 0] if channels in (3, 4) else [0] * channels
    return [(grey, grey, grey) for grey in beside[:channels]]


def planes_to_tensor(planes: list[Image.Image], bits: int) -> Tensor:
    """Returns planes with values in 0..65535 as uint8 or uint16 [channels, height, width]."""
    values = np.stack([np.asarray(plane) for plane in planes]).astype(np.float64)
    values = np.clip(values, 0, 65535) / (257 if bits == 8 else 1)
    return torch.from_numpy(np.rint(values).astype(np.uint8 if bits == 8 else np.uint16))
