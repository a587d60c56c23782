"""Images to PNG files and animations, each whole or not there."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def save_picture(image: Tensor, path: Path) -> None:
    """Write one image [channels, height, width] in [0, 1] as PNG, making the folder if needed.

    Raises:
        ValueError: neither 1, 3 nor 4 channels.
    """
    if len(image) not in (1, 3, 4):
        raise ValueError(f"a picture has 1, 3 or 4 channels; got {len(image)}")
    pixels = (image.float() * 255).round().byte().cpu().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    picture.save(aside, format="PNG")
    os.replace(aside, path)


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Write images [batch, channels, height, width] in [0, 1] as one PNG, small ones enlarged.

    Of images with 2 or more than 4 channels, the first (three) are shown.

    Args:
        images: The images, row by row.
        path: Of the PNG.
        columns: Images in a row, such as the number of classes; None, or more than there are images, for nearly a
            square.
    """
    if images.shape[1] not in (1, 3, 4):
        images = images[:, : 3 if images.shape[1] > 3 else 1]
    enlarge = max(1, 48 // images.shape[-1])
    large = images.float().cpu().repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    if columns is None or columns > len(images):
        columns = math.ceil(math.sqrt(len(images)))
    save_picture(arrange(large, columns), path)


def arrange(images: Tensor, columns: int) -> Tensor:
    """Images [batch, channels, height, width], row by row, as one with 2 grey pixels around each."""
    batch, channels, height, width = images.shape
    rows = math.ceil(batch / columns)
    grid = images.new_full((channels, rows, height + 2, columns, width + 2), 0.5)
    for index, image in enumerate(images):
        grid[:, index // columns, :height, index % columns, :width] = image
    framed = grid.flatten(3, 4).flatten(1, 2)
    return torch.nn.functional.pad(framed, (2, 0, 2, 0), value=0.5)


def save_animation(frames: Sequence[np.ndarray], path: Path, frames_per_second: float = 10.0) -> None:
    """Write frames [height, width, 3], uint8, as an animated GIF, making the folder if needed."""
    pictures = [Image.fromarray(np.asarray(frame)).quantize(64) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    duration = round(1000 / frames_per_second)
    pictures[0].save(aside, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    os.replace(aside, path)
