"""What the headers of image files tell before training: broken, small and grey images."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ...parts.counting import counted
from .decode import DECODING_ERRORS, image_formats

_GREY = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")
_MULTIPLE = 8  # that most networks need of a size


@dataclass
class Headers:
    """The headers of some images.

    Attributes:
        seen: Number of files read.
        broken: Paths of files without a readable header.
        sizes: (width, height) of each image.
        grey: Number of grey images.
    """

    seen: int = 0
    broken: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    grey: int = 0


def read_headers(folder: str, paths: Sequence[str], seconds: float = 1.0) -> Headers:
    """Reads the headers of images for a limited time, in an order that is spread over the folder.

    Args:
        folder: Folder of the images.
        paths: Paths relative to it.
        seconds: Time limit, after which the rest is left out; some 10,000 files take one.
    """
    found, formats = Headers(), list(image_formats())
    end = time.perf_counter() + seconds
    for index in np.random.default_rng(0).permutation(len(paths)):
        path = paths[int(index)]
        try:
            with (
                open(os.path.join(folder, path), "rb") as file,
                Image.open(file, formats=formats) as image,
            ):
                found.sizes.append(image.size)
                found.grey += image.mode in _GREY
        except DECODING_ERRORS:
            found.broken.append(path)
        found.seen += 1
        if time.perf_counter() > end:
            break
    return found


def header_notes(
    found: Headers, total: int, image_size: tuple[int, int], channels: int, skips: bool
) -> list[str]:
    """Returns what a user should know of the images, a line each.

    Args:
        found: Headers of the images, or of some of them.
        total: Number of all images.
        image_size: (height, width) that images are brought to.
        channels: Channels that images are brought to.
        skips: Whether broken images are skipped.
    """
    (height, width), notes = image_size, []
    of = "" if found.seen == total else f" among {counted(found.seen, 'file')} looked at"
    if found.broken:
        what = f"{counted(len(found.broken), 'broken image')}{of}, such as {min(found.broken)!r}"
        end = "skipped" if skips else "training stops there, unless --data.broken skip"
        notes.append(f"{what}: {end}")
    small = [size for size in found.sizes if size[0] < width or size[1] < height]
    if small:
        which = f"{len(small):,} of {counted(len(found.sizes), 'image')}"
        which = "all images" if len(small) == len(found.sizes) else which
        across, down = max(small, key=min)
        fit = -(-min(across, down) // _MULTIPLE) * _MULTIPLE
        hint = f" (--diffusion.model.image_size {fit} suits)"
        smaller = len(small) == len(found.sizes) and fit < min(height, width)
        notes.append(
            f"{which}{of} are smaller, such as {across} x {down}, and are enlarged"
            f"{hint if smaller else ''}"
        )
    if channels == 3 and found.sizes and found.grey == len(found.sizes):
        notes.append(f"all images{of} are grey (--diffusion.model.channels 1 suits)")
    return notes
