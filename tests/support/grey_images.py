"""Grey images for tests: written to files, and read back as numbers."""

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, grey: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    """Writes a PNG of one grey, of size (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path, format="PNG")


def greys(images) -> list[int]:
    """Returns the first pixel of each image tensor [channels, height, width]."""
    return [int(image[0, 0, 0]) for image in images]


def pixels(image: Image.Image) -> np.ndarray:
    """Returns the values of an image as signed integers, safe to subtract."""
    return np.asarray(image).astype(int)
