"""Writes images as PNG, values as .npy and animations as GIF files, each atomically."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def save_picture(image: Tensor, path: Path, bits: int = 8) -> None:
    """Writes one image [channels, height, width] as a PNG file, and makes its folder.

    Args:
        image: Image with values in [0, 1], to which they are clipped.
        path: Path of the file.
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
    picture = Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    picture.save(temporary, format="PNG")
    os.replace(temporary, path)


def save_values(sample: Tensor, path: Path) -> None:
    """Writes the values of a sample of any shape as a .npy file, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.save(file, sample.float().cpu().numpy())
    os.replace(temporary, path)


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes images as one PNG file, arranged in a grid.

    Images narrower than 25 pixels are enlarged by a whole factor, to a width of at most 48 pixels.
    Images with 2 channels are shown by the first, images with more than 4 by the first three.

    Args:
        images: Images [batch, channels, height, width] in [0, 1], row by row.
        path: Path of the PNG file, whose folder is made if needed.
        columns: Number of images in a row, such as the number of classes. With None, or more
            columns than images, the grid is nearly square.
    """
    if images.shape[1] not in (1, 3, 4):
        images = images[:, : 3 if images.shape[1] > 3 else 1]
    enlarge = max(1, 48 // images.shape[-1])
    large = images.float().cpu().repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    if columns is None or columns > len(images):
        columns = math.ceil(math.sqrt(len(images)))
    save_picture(arrange(large, columns), path)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    duration = round(1000 / frames_per_second)
    pictures[0].save(
        temporary,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=duration,
        loop=0,
    )
    os.replace(temporary, path)
