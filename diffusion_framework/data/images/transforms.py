"""A user's own transform of images, with randomness that a resumed run repeats."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Transform = Callable[[Image.Image], Any]
"""Function from a decoded image to an image that is then resized, or to the sample, a tensor."""


def transformed(
    image: Image.Image, transform: Transform, seed: int, shape: tuple[int, ...], name: str
) -> Image.Image | Tensor:
    """Returns the result of a transform, whose global random numbers depend only on the seed.

    Args:
        image: Decoded image.
        transform: Transform to apply.
        seed: Seed of PyTorch's, NumPy's and Python's random numbers in the transform.
        shape: Shape [channels, height, width] that a tensor must have.
        name: Name of the image, for errors.

    Raises:
        ValueError: the result is neither an image nor a tensor of this shape.
    """
    with seeded(seed):
        result = transform(image)
    if isinstance(result, Image.Image):
        return result
    if not isinstance(result, Tensor) or tuple(result.shape) != shape:
        got = f"{[*result.shape]}" if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(
            f"Expected a Pillow image or a tensor {[*shape]} from transform, got {got} for image "
            f"{name}. Fix: return a Pillow image, which is then resized, or a tensor of this shape."
        )
    return result.contiguous()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of PyTorch (on the CPU), NumPy and Python, and restores them."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])
