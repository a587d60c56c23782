"""Bounds on the time and memory that decoding one image takes, checked before it is decoded."""

from __future__ import annotations

import re
from typing import Any

from PIL import Image

_TILE_WIDTH_TAG, _TILE_LENGTH_TAG = 322, 323  # in TIFF
# A JPEG file may hold thousands of scans, each through all pixels; usual files hold 10.
_USUAL_SCANS = 20
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # not stuffing and not a restart
_END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd9", b"\xff\xda"


def check_effort(image: Image.Image) -> None:
    """Checks an image that is opened but not yet decoded.

    It has at most `PIL.Image.MAX_IMAGE_PIXELS` pixels (89 million), as has each tile of a TIFF
    file. The scans of a progressive JPEG file read at most 20 times as many pixels.

    Raises:
        ValueError: a bound is exceeded; the reason is without the name of the file.
    """
    check_pixels(image.width, image.height)
    if image.format == "TIFF":
        tags: Any = image.getexif()
        width, length = tags.get(_TILE_WIDTH_TAG, 1), tags.get(_TILE_LENGTH_TAG, 1)
        check_pixels(width, length, what="a tile of ")
    elif image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        scans = _scans(_content(image))
        work = max(1, scans // _USUAL_SCANS)
        check_pixels(image.width, image.height, values=work, what=f"{scans} scans of ")


def check_pixels(width: int, height: int, values: int = 1, what: str = "") -> None:
    """Raises ValueError for more than `PIL.Image.MAX_IMAGE_PIXELS` pixels.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        values: Number of values in a pixel that each count as a pixel, such as channels.
        what: Words before the size, for the error.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height * values > limit:
        times = f" x {values}" if values > 1 else ""
        raise ValueError(f"{what}{width} x {height}{times} exceeds the limit of {limit} pixels")


def _content(image: Image.Image) -> bytes:
    """Returns the file of an opened image."""
    file: Any = image.fp  # type: ignore[attr-defined]
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    return content


def _scans(content: bytes) -> int:
    """Returns the number of scans of the first image in a JPEG file."""
    position, scans = 2, 0
    while (marker := _MARKER.search(content, position)) and marker[0] != _END_OF_IMAGE:
        scans += marker[0] == _START_OF_SCAN
        length = content[marker.end() : marker.end() + 2]
        position = marker.end() + (int.from_bytes(length, "big") if len(length) == 2 else 2)
    return scans
