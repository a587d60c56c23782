"""One picture file to one upright picture, and one picture to one tensor of a given size."""

import math
import os
import struct
import zlib
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from diffusion_framework.data.dataset import Picture
from diffusion_framework.data.images import deep

# EPS runs an external program; BUFR, GRIB, HDF5 and WMF need a handler that Pillow does not bring; of MPEG it
# reads the header alone.
NOT_PICTURES = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"})

# What Pillow raises for damaged files, found by damaging files. MemoryError is among them for absurd sizes.
BROKEN = (
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

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by number of channels
ORIENTATION = 274  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImageError(ValueError):
    """A file cannot be decoded. The message is one line that names the file and the reason."""


@lru_cache(maxsize=1)
def picture_formats() -> dict[str, tuple[str, ...]]:
    """The formats that are decoded, each with its file endings: all that Pillow reads but NOT_PICTURES."""
    Image.init()
    endings: dict[str, list[str]] = {name: [] for name in Image.ID if name not in NOT_PICTURES}
    for ending, name in Image.registered_extensions().items():
        # multi-picture files (MPO) have an ending of their own but are opened as JPEG
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
    """The first frame of a picture file, upright by its EXIF orientation, in mode L, RGB or RGBA, or F.

    Transparent pixels are laid on `background`, or kept with 4 channels. Values of more than 8 bits are
    scaled, not clipped, all pictures alike: see `deep.scaled`. Colour profiles are not applied. The
    format is told by the content, not by the file's ending.

    Args:
        source: the file's path, or an open file, which is named in errors by its `name` if it has one.
        channels: 1, 3 or 4, for mode L, RGB or RGBA.
        background: red, green and blue in 0..255 behind transparent pixels.
        convert_image_to: a Pillow mode, such as L, through which the colours go; transparency is not touched.
        at_least: (height, width) that `crop_and_resize` will ask for. A large JPEG is then decoded at 1/2,
            1/4 or 1/8 of its scale, which is faster, but never below twice this size.
        value_range: the smallest and the largest value of pictures of more than 8 bits; None is that of their
            type, or [0, 1] for floats.
        bits: 16 keeps the depth of grey pictures of more than 8 bits: their mode is then F, their values 0..65535.

    Raises:
        ValueRangeError: for a picture whose values lie outside of the range.
        BrokenImageError: for a file that is missing, unreadable, damaged, truncated, no picture, or of more
            than PIL.Image.MAX_IMAGE_PIXELS pixels.
    """
    try:
        with Image.open(source, formats=list(picture_formats())) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ValueError(f"{image.width} x {image.height} is more than the limit of {limit} pixels")
            if at_least is not None and image.format in ("JPEG", "MPO"):
                reduce_scale(image, at_least)
            image.load()
            # after load: TIFF then is upright already, and PNG may hold its EXIF behind the pixels
            orientation = image.getexif().get(ORIENTATION)
            upright = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
            file_bits = getattr(image, "tag_v2", {}).get(deep.BITS_PER_SAMPLE, (16,))[0]  # TIFF may say 12
            if bits == 16 and deep.is_deep(upright) and convert_image_to in (None, "L"):
                return deep.to_sixteen_bits(upright, value_range, file_bits, background)
            if deep.is_deep(upright):
                plain = deep.to_eight_bits(upright, value_range, file_bits)
            else:
                plain = to_plain_mode(upright)
    except deep.ValueRangeError as error:
        raise deep.ValueRangeError(f"cannot take image {name_of(source)}: {error}") from error
    except BROKEN as error:
        raise BrokenImageError(f"cannot decode image {name_of(source)}: {reason(error)}") from error
    return to_channels(plain, channels, background, convert_image_to)


def is_deep_file(source: str | os.PathLike[str] | BinaryIO) -> bool:
    """Whether a picture file has values of more than 8 bits; its header alone is read.

    Raises:
        BrokenImageError: for a file that cannot be read.
    """
    try:
        with Image.open(source, formats=list(picture_formats())) as image:
            return deep.is_deep(image)
    except BROKEN as error:
        raise BrokenImageError(f"cannot decode image {name_of(source)}: {reason(error)}") from error


def name_of(source: str | os.PathLike[str] | BinaryIO) -> str:
    """A file's name in quotes, on one line whatever the name."""
    return repr(
        os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "without a name")
    )


def reason(error: BaseException) -> str:
    """What went wrong, in a line that does not name the file again."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, damaged, or not a picture"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__} {text}".strip()


def reduce_scale(image: Image.Image, at_least: tuple[int, int]) -> None:
    """Have a JPEG that is not yet loaded decoded at the smallest scale with twice `at_least` in its crop."""
    height, width = at_least
    if image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8):  # lying on its side
        height, width = width, height
    shrink = 2 * max(height / image.height, width / image.width)
    if shrink < 1:
        image.draft(None, (math.ceil(image.width * shrink), math.ceil(image.height * shrink)))


def to_plain_mode(image: Image.Image) -> Image.Image:
    """Any mode of 8 bits to L, RGB or RGBA."""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # None is for inPlace=True alone
        return converted
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("L", "1") else "RGB")


def to_channels(
    image: Image.Image, channels: int, background: tuple[int, int, int], convert_image_to: str | None
) -> Image.Image:
    """Mode L, RGB or RGBA to the mode of 1, 3 or 4 channels, by way of `convert_image_to`."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is not None and channels != 4:
        opaque = Image.new("RGB", image.size, background)
        opaque.paste(image, mask=alpha)  # convert("RGB") would bring back the colour hidden under alpha
        image = opaque
    if convert_image_to is not None:
        image = image.convert("RGB").convert(convert_image_to).convert("RGB")
    if image.mode != (mode := MODES[channels]):
        image = image.convert(mode)
    if alpha is not None and channels == 4:
        image.putalpha(alpha)
    return image


def crop_and_resize(image: Image.Image, size: tuple[int, int], place: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """The largest box of the proportions of `size` (height, width), resized to it.

    The box touches two opposite sides; `place` (down, right) in 0..1 says where it lies between the others.
    Only the box is resized, so that 1 x 9000 never grows to 64 x 576000. The filter is antialiased bicubic,
    as in the usual evaluation of generated images.
    """
    height, width = size
    scale = min(image.height / height, image.width / width)
    top = max(place[0] * (image.height - height * scale), 0)
    left = max(place[1] * (image.width - width * scale), 0)
    if scale == 1:  # whole pixels, which are then copied as they are
        top, left = int(top), int(left)
    right, bottom = min(left + width * scale, image.width), min(top + height * scale, image.height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def to_tensor(image: Image.Image, channels: int | None = None, bits: int = 8) -> Picture:
    """A contiguous tensor of a picture in mode L, RGB or RGBA, or in mode F with values 0..65535.

    Args:
        image: The picture.
        channels: 1, 3 or 4 for a picture in mode F, which is grey; else those of its mode.
        bits: 8 gives uint8; 16 gives uint16, in which the values of an 8-bit picture are 257 times as large.
    """
    if bits == 8:
        return _channels_first(np.array(image))
    if image.mode != "F":
        return _channels_first(np.array(image).astype(np.uint16) * np.uint16(257))
    grey = torch.from_numpy(np.rint(np.clip(np.array(image), 0, 65535)).astype(np.uint16))[None]
    colours = [grey] * (1 if channels == 1 else 3)
    return torch.cat([*colours, torch.full_like(grey, 65535)] if channels == 4 else colours)


def _channels_first(pixels: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(pixels)
    return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1).contiguous()
