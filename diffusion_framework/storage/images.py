"""Encodes images as PNG, values as .npy and animations as GIF files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .replacing import replacing


def png(image: Tensor, bits: int = 8) -> bytes:
    """Returns one image [channels, height, width] as the content of a PNG file.

    Args:
        image: Image with values in [0, 1], to which they are clipped.
        bits: Bits of each value, 8 or 16; colours always have 8.

    Raises:
        ValueError: If the image does not have 1, 3 or 4 channels.
    """
    if len(image) not in (1, 3, 4):
        raise ValueError(
            f"Expected an image with 1, 3 or 4 channels, got {len(image)}. "
            "Fix: choose the channels to show."
        )
    largest, dtype = (65535, np.uint16) if bits == 16 and len(image) == 1 else (255, np.uint8)
    values = (image.float().clamp(0, 1) * largest).round().cpu().permute(1, 2, 0)
    pixels = values.numpy().astype(dtype)
    content = BytesIO()
    Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels).save(content, format="PNG")
    return content.getvalue()


def npy(sample: Tensor) -> bytes:
    """Returns the values of a sample of any shape as the content of a .npy file."""
    content = BytesIO()
    np.save(content, sample.float().cpu().numpy())
    return content.getvalue()


def save_picture(image: Tensor, path: Path) -> None:
    """Writes one image as `png` encodes it, and makes its folder."""
    with replacing(path) as file:
        file.write(png(image))


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes images in a `grid` as one PNG file, and makes its folder."""
    save_picture(grid(images, columns), path)


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Arranges images in one image [channels, height, width].

    Images narrower than 25 pixels are enlarged by a whole factor, to a width of at most 48 pixels.
    Images with 2 channels are shown by the first, images with more than 4 by the first three.

    Args:
        images: Images [batch, channels, height, width] in [0, 1], row by row.
        columns: Number of images in a row, such as the number of classes. With None, or more
            columns than images, the grid is nearly square.
    """
    if images.shape[1] not in (1, 3, 4):
        images = images[:, : 3 if images.shape[1] > 3 else 1]
    enlarge = max(1, 48 // images.shape[-1])
    large = images.float().cpu().repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    if columns is None or columns > len(images):
        columns = math.ceil(math.sqrt(len(images)))
    return arrange(large, columns)


def arrange(images: Tensor, columns: int) -> Tensor:
    """Arranges images [batch, channels, height, width] row by row in one image.

    Grey lines of 2 pixels (value 0.5) surround each image, and empty places are grey. Returns
    [channels, rows * (height + 2) + 2, columns * (width + 2) + 2].
    """
    batch, channels, height, width = images.shape
    rows = math.ceil(batch / columns)
    grid = images.new_full((channels, rows, height + 2, columns, width + 2), 0.5)
    for index, image in enumerate(images):
        grid[:, index // columns, :height, index % columns, :width] = image
    framed = grid.flatten(3, 4).flatten(1, 2)
    return torch.nn.functional.pad(framed, (2, 0, 2, 0), value=0.5)


def save_animation(
    frames: Sequence[np.ndarray], path: Path, frames_per_second: float = 10.0
) -> None:
    """Writes uint8 frames [height, width, 3] as an animated GIF file, and makes its folder."""
    pictures = [Image.fromarray(np.asarray(frame)).quantize(64) for frame in frames]
    duration = round(1000 / frames_per_second)
    with replacing(path) as file:
        pictures[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=duration,
            loop=0,
        )
