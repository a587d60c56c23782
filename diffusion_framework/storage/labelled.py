"""Grids of pictures with what was asked for: pictures beside them, and texts below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from torch import Tensor

from .images import arrange, grid

_NARROWEST = 96  # pixels of a cell with text
_SIZE, _LINE, _MARGIN = 10, 12, 2  # of letters, of a line, beside the text; in pixels
_MOST_LINES = 3


def labelled_grid(
    images: Tensor,
    texts: Sequence[str] | None = None,
    beside: Sequence[Tensor] = (),
    columns: int | None = None,
) -> Tensor:
    """Arranges images in one RGB image, each with its conditions; without any, as `grid` does.

    An image of a condition stands to the left, enlarged to the same height, and a text below, in up
    to 3 lines. With texts, narrow images are enlarged by a whole factor.

    Args:
        images: Images [batch, channels, height, width] in [0, 1], row by row.
        texts: A text for each image, or None.
        beside: Images of conditions [batch, channels, height, width] in [0, 1], of any size.
        columns: Number of images in a row; None makes the grid nearly square.

    Returns:
        One image [3, height, width] in [0, 1]; [channels, height, width] without conditions.
    """
    if texts is None and not beside:
        return grid(images, columns)
    height = images.shape[-2]
    cells = torch.cat([*(_of_height(rgb(one), height) for one in beside), rgb(images)], dim=-1)
    smallest = 48 if texts is None else _NARROWEST
    cells = _enlarged(cells, max(1, math.ceil(smallest / cells.shape[-1])))
    if texts is not None:
        cells = torch.cat([cells, _captions(texts, cells.shape[-1])], dim=-2)
    if columns is None or columns > len(cells):
        wide = cells.shape[-1] / cells.shape[-2]
        columns = max(1, round(math.sqrt(len(cells) / wide)))
    return arrange(cells, columns)


def split_views(
    views: Mapping[str, Tensor | list[str]],
) -> tuple[list[str] | None, tuple[Tensor, ...]]:
    """Returns the texts and the images of conditions, as `labelled_grid` takes them.

    Args:
        views: Conditions by name: images in [0, 1], or one text for each sample.
    """
    texts = [view for view in views.values() if isinstance(view, list)]
    joined = [", ".join(several) for several in zip(*texts, strict=True)] if texts else None
    return joined, tuple(view for view in views.values() if isinstance(view, Tensor))


def rgb(images: Tensor) -> Tensor:
    """Returns images of any number of channels as float RGB images; transparent pixels are white.

    Images with 2 channels are shown by the first, images with more than 4 by the first three.
    """
    images = images.detach().float().cpu().clamp(0, 1)
    channels = images.shape[1]
    if channels == 4:
        alpha = images[:, 3:]
        return images[:, :3] * alpha + 1 - alpha
    return images[:, :3] if channels >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def _enlarged(images: Tensor, factor: int) -> Tensor:
    return images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def _of_height(images: Tensor, height: int) -> Tensor:
    """Returns images of this height, which repeat or leave out pixels."""
    width = max(1, round(images.shape[-1] * height / images.shape[-2]))
    return torch.nn.functional.interpolate(images, (height, width), mode="nearest-exact")


def _captions(texts: Sequence[str], width: int) -> Tensor:
    """Returns the texts in black on white, [batch, 3, height, width], of one height."""
    font = ImageFont.load_default(_SIZE)
    wrapped = [_lines(text, width - 2 * _MARGIN, font) for text in texts]
    height = _LINE * max(map(len, wrapped)) + _MARGIN
    pictures = []
    for lines in wrapped:
        picture = Image.new("L", (width, height), 255)
        draw = ImageDraw.Draw(picture)
        for number, line in enumerate(lines):
            draw.text((_MARGIN, _LINE * number), line, fill=0, font=font)
        pictures.append(np.asarray(picture))
    return torch.from_numpy(np.stack(pictures))[:, None].expand(-1, 3, -1, -1).float() / 255


def _lines(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Breaks a text into lines of a width in pixels; what has no place ends in three dots."""
    if not features.check("freetype2"):  # the other font has these letters only
        text = text.encode("latin-1", "replace").decode("latin-1")
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = lines[:_MOST_LINES]
    cut = len(lines) > _MOST_LINES
    return [
        _cut(line, width, font, dots=cut and number == _MOST_LINES - 1)
        for number, line in enumerate(kept)
    ]


def _cut(
    line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, dots: bool
) -> str:
    """Returns a line of at most a width; three dots stand for what is cut off."""
    if not dots and font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line + "..."
