"""Images to PNG files, each whole or not there."""

from __future__ import annotations

import math
import os
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid


def save_picture(image: Tensor, path: Path) -> None:
    """Write one image [channels, height, width] in [0, 1] as PNG, making the folder if needed.

    Raises:
        ValueError: neither 1, 3 nor 4 channels.
    """
    if len(image) not in (1, 3, 4):
        raise ValueError(f"a picture has 1, 3 or 4 channels; got {len(image)}")
    picture: Image.Image = to_pil_image((image.float() * 255).round().byte().cpu())
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
    save_picture(make_grid(large, nrow=columns, padding=2, pad_value=0.5), path)
