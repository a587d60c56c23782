"""Decoding of image files into upright images."""

import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any, BinaryIO

from PIL import Image, ImageCms, UnidentifiedImageError

from . import deep
from .limits import check_effort

# EPS runs an external program; BUFR, GRIB, HDF5 and WMF need handlers that Pillow does not ship.
# Pillow reads only the header of MPEG.
EXCLUDED_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"})

# The exceptions that Pillow raises for damaged files, found by damaging files.
# Absurd sizes raise MemoryError.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    ImageCms.PyCMSError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # number of channels -> Pillow mode
ORIENTATION_TAG = 274  # in EXIF
UPRIGHT_TRANSPOSES = {  # EXIF orientation -> transpose that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImageError(ValueError):
    """Raised for a file that cannot be decoded, with its name and the reason on one line."""


@lru_cache(maxsize=1)
def image_formats() -> dict[str, tuple[str, ...]]:
    """Returns the decoded formats with their file endings: Pillow's except EXCLUDED_FORMATS."""
    Image.init()
    endings: dict[str, list[str]] = {name: [] for name in Image.ID if name not in EXCLUDED_FORMATS}
    for ending, name in Image.registered_extensions().items():
        # MPO (several JPEG images in one file) has its own ending, but Pillow opens it as JPEG
        if (name := "JPEG" if name == "MPO" else name) in endings:
            endings[name].append(ending)
    return {name: tuple(found) for name, found in endings.items()}


def decode_image(
    source: str | os.PathLike[str] | BinaryIO,
    channels: int = 3,
    background: tuple[int, int, int] = (255, 255, 255),
    convert_image_to: str | None = None,
    at_least: tuple[int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    bits: int = 8,
) -> Image.Image:
    """Decodes the first frame of an image file into an upright image of mode L, RGB, RGBA or F.

    The EXIF orientation is applied, colour profiles are not. Transparent pixels are composited
    onto `background`, or kept with 4 channels. Values of more than 8 bits are scaled, not clipped,
    equally for every image (see `deep.scale_values`). The format is detected from the
    content, not from the file's ending.

    Args:
        source: Path of the file, or a binary file object; its `name`, if any, appears in errors.
        channels: 1, 3 or 4, for mode L, RGB or RGBA.
        background: Red, green and blue in 0..255 behind transparent pixels.
        convert_image_to: Pillow mode, such as L, that colours are converted to and back;
            transparency stays.
        at_least: (height, width) of a later `crop_and_resize`. A large JPEG is then decoded at
            1/2, 1/4 or 1/8 of its scale, which is faster. The crop keeps at least twice this size.
        value_range: Smallest and largest value of images of more than 8 bits; None for the range
            of their integer type, or [0, 1] for floats.
        bits: 8, or 16 to keep the depth of grey images of more than 8 bits; these have mode F and
            values in 0..65535.

    Raises:
        ValueRangeError: values outside `value_range`.
        LostDepthError: with 16 bits, colours of more than 8 bits in a format of which Pillow keeps
            only 8: PPM, JPEG 2000, AVIF or SGI.
        BrokenImageError: the file is missing, unreadable, damaged, truncated, not an image, or
            exceeds a bound of `limits.check_effort`, such as `PIL.Image.MAX_IMAGE_PIXELS` pixels.
    """
    try:
        with opened(source) as image:
            check_effort(image)
            if bits == 16 and convert_image_to in (None, "L"):
                deep.check_kept(image, quoted_name(source))
            if at_least is not None and image.format in ("JPEG", "MPO"):
                reduce_scale(image, at_least)
            # TIFF and JPEG 2000 may declare 12 bits
            file_bits = getattr(image, "tag_v2", {}).get(deep.BITS_PER_SAMPLE_TAG, (16,))[0]
            shift = deep.shift(image)
            image.load()
            upright = turn_upright(image)
            if shift:
                upright, file_bits = deep.shifted(upright, shift), 16 - shift
            if bits == 16 and deep.is_deep(upright) and convert_image_to in (None, "L"):
                return deep.to_sixteen_bits(upright, value_range, file_bits, background)
            if deep.is_deep(upright):
                eight_bit = deep.to_eight_bits(upright, value_range, file_bits)
            else:
                eight_bit = to_plain_mode(upright)
    except deep.LostDepthError:
        raise
    except deep.ValueRangeError as error:
        raise deep.ValueRangeError(f"Image {quoted_name(source)}: {error}") from error
    except DECODING_ERRORS as error:
        raise BrokenImageError(
            f"Expected a readable image, got {quoted_name(source)} ({reason(error)}). "
            "Fix: replace or remove the file."
        ) from error
    return to_channels(eight_bit, channels, background, convert_image_to)


def is_deep_file(source: str | os.PathLike[str] | BinaryIO) -> bool:
    """Returns whether an image file has more than 8 bits per channel, from its header alone.

    Raises:
        LostDepthError: Pillow does not keep its depth; see `decode_image`.
        BrokenImageError: the file cannot be read.
    """
    try:
        with opened(source) as image:
            deep.check_kept(image, quoted_name(source))
            return deep.is_deep(image)
    except deep.LostDepthError:
        raise
    except DECODING_ERRORS as error:
        raise BrokenImageError(
            f"Expected a readable image, got {quoted_name(source)} ({reason(error)}). "
            "Fix: replace or remove the file."
        ) from error


@contextmanager
def opened(source: str | os.PathLike[str] | BinaryIO) -> Iterator[Image.Image]:
    """Yields an opened image that reads its file instead of mapping it.

    Pillow maps uncompressed files that it opens by name. A file cut short while it is mapped would
    end the process (SIGBUS).
    """
    with ExitStack() as stack:
        file: Any = source
        if isinstance(source, str | os.PathLike):
            file = stack.enter_context(open(source, "rb"))
        yield stack.enter_context(Image.open(file, formats=list(image_formats())))


def quoted_name(source: str | os.PathLike[str] | BinaryIO) -> str:
    """Returns the quoted name of a file on one line; `repr` escapes newlines."""
    return repr(
        os.fspath(source)
        if isinstance(source, str | os.PathLike)
        else getattr(source, "name", "without a name")
    )


def reason(error: BaseException) -> str:
    """Describes a decoding error on one line, without the name of the file."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, damaged, or not in a supported image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, (OSError, ValueError))
        else f"{type(error).__name__} {text}".strip()
    )


def turn_upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation of a loaded image.

    `Image.load` turns TIFF images upright itself, and PNG may store EXIF data after the pixels.
    """
    orientation = image.getexif().get(ORIENTATION_TAG)
    if orientation not in UPRIGHT_TRANSPOSES:
        return image
    return image.transpose(UPRIGHT_TRANSPOSES[orientation])


def reduce_scale(image: Image.Image, at_least: tuple[int, int]) -> None:
    """Sets a JPEG that is not loaded yet to decode at the smallest sufficient scale.

    The scale is sufficient if the crop with the proportions of `at_least` (height, width) is at
    least twice that size.
    """
    height, width = at_least
    if image.getexif().get(ORIENTATION_TAG, 1) in (5, 6, 7, 8):  # rotated by 90 degrees
        height, width = width, height
    shrink = 2 * max(height / image.height, width / image.width)
    if shrink < 1:
        image.draft(None, (math.ceil(image.width * shrink), math.ceil(image.height * shrink)))


def to_plain_mode(image: Image.Image) -> Image.Image:
    """Converts an image of any mode of 8 bits to mode L, RGB or RGBA."""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # None is returned only for inPlace=True
        return converted
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("L", "1") else "RGB")


def to_channels(
    image: Image.Image,
    channels: int,
    background: tuple[int, int, int],
    convert_image_to: str | None,
) -> Image.Image:
    """Converts an image of mode L, RGB or RGBA to the mode of 1, 3 or 4 channels.

    Args:
        image: Image of mode L, RGB or RGBA.
        channels: 1, 3 or 4.
        background: Red, green and blue in 0..255 behind transparent pixels; unused with 4 channels.
        convert_image_to: Pillow mode that colours are converted to and back, or None.
    """
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None and channels != 4:
        opaque = Image.new("RGB", image.size, background)
        opaque.paste(image, mask=alpha)  # convert("RGB") would reveal the colours under alpha
        image = opaque
    if convert_image_to is not None:
        image = image.convert("RGB").convert(convert_image_to).convert("RGB")
    if image.mode != (mode := MODES[channels]):
        image = image.convert(mode)
    if alpha is not None and channels == 4:
        image.putalpha(alpha)
    return image
