"""Cropping, padding and resizing of images, and their conversion to tensors."""

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..dataset import ImageTensor

Fit = Literal["crop", "pad", "stretch"]


def crop_and_resize(
    image: Image.Image, size: tuple[int, int], position: tuple[float, float] = (0.5, 0.5)
) -> Image.Image:
    """Crops the largest box with the proportions of `size` and resizes it, never stretching.

    Only the box is resized, so that a 1 x 9000 image never grows to 64 x 576000. The filter is
    antialiased bicubic, as is usual in the evaluation of generated images.

    Args:
        image: Image of any size.
        size: (height, width) of the result.
        position: (vertical, horizontal) position of the box in 0..1, from the top left to the
            bottom right; the box spans the image in one direction.
    """
    height, width = size
    scale = min(image.height / height, image.width / width)
    top = max(position[0] * (image.height - height * scale), 0)
    left = max(position[1] * (image.width - width * scale), 0)
    if scale == 1:  # integer offsets, so that pixels are copied unchanged
        top, left = int(top), int(left)
    right, bottom = min(left + width * scale, image.width), min(top + height * scale, image.height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def fit_image(
    image: Image.Image,
    size: tuple[int, int],
    fit: Fit = "crop",
    position: tuple[float, float] = (0.5, 0.5),
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Brings an image to a size.

    Args:
        image: Image of mode L, RGB, RGBA, or F with values in 0..65535.
        size: (height, width) of the result.
        fit: 'crop' for the largest box with the proportions of `size`, 'pad' for the whole image
            with its own proportions on a background, 'stretch' for the whole image stretched.
        position: (vertical, horizontal) position of the cropped box in 0..1.
        background: Red, green and blue in 0..255 beside a padded image. With RGBA, it is
            transparent.
    """
    if fit == "crop":
        return crop_and_resize(image, size, position)
    height, width = size
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    scale = min(height / image.height, width / image.width)
    inner = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.BICUBIC,
    )
    canvas = Image.new(image.mode, (width, height), _colour(image.mode, background))
    canvas.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return canvas


def _colour(mode: str, background: tuple[int, int, int]) -> float | tuple[int, ...]:
    """Returns red, green and blue in 0..255 as a colour of mode L, RGB, RGBA or F."""
    if mode in ("RGB", "RGBA"):
        return background if mode == "RGB" else (*background, 0)
    grey = np.asarray(Image.new("RGB", (1, 1), background).convert("L")).item()
    return grey if mode == "L" else 257.0 * grey


def to_tensor(image: Image.Image, channels: int | None = None, bits: int = 8) -> ImageTensor:
    """Converts an image to a contiguous tensor [channels, height, width].

    Args:
        image: Image of mode L, RGB or RGBA, or of mode F with values in 0..65535.
        channels: 1, 3 or 4 for mode F, with the grey repeated; other modes keep their channels.
        bits: 8 for uint8; 16 for uint16, where the values of 8-bit images are multiplied by 257.
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
