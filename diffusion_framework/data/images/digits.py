"""Handwritten digits, packaged with the library: a real dataset without a download."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from beartype import beartype
from PIL import Image

from ..dataset import ImageDataset, ImageTensor
from .decode import MODES
from .resize import crop_and_resize, to_tensor

_FILE = Path(__file__).with_name("digits.npz")  # its source and licence: digits.txt


class Digits(ImageDataset):
    """1797 grey images of handwritten digits, 8 x 8 pixels.

    Source: test set of Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), with
    values 0..16 scaled to 0..255.
    """

    @beartype
    def __init__(
        self,
        image_size: int | tuple[int, int] = 8,
        channels: int = 1,
        *,
        labels: bool = False,
        split: Literal["all", "train", "test"] = "all",
    ):
        """Loads and resizes all digits.

        Args:
            image_size: Side of the square images, or [height, width]; 8 keeps the pixels unchanged.
            channels: 1 for grey, 3 for RGB, 4 for RGBA with full opacity.
            labels: Whether to load the digits as class labels; samples are then (image, label).
            split: 'all' images, 'test' (every fifth image of each digit) or 'train' (the others).

        Raises:
            ValueError: a size below 1, or channels other than 1, 3 or 4.
        """
        super().__init__(image_size, channels)
        if channels not in MODES:
            raise ValueError(
                f"Expected channels 1, 3 or 4, got {channels}. "
                "Fix: take 1 for grey, 3 for RGB, 4 for RGBA."
            )
        self.split = split
        with np.load(_FILE, allow_pickle=False) as stored:
            values, digits = stored["images"], stored["labels"]
        # counts within each digit: every fifth of all images would be a 0 or a 5, because the
        # digits often run 0, 1, ..., 9
        rank = np.array([np.count_nonzero(digits[:i] == digit) for i, digit in enumerate(digits)])
        held_out = rank % 5 == 0
        chosen = {"all": np.full_like(held_out, True), "train": ~held_out, "test": held_out}[split]
        pixels = np.rint(values[chosen] * (255 / 16)).astype(np.uint8)
        resized = [crop_and_resize(Image.fromarray(digit), self.image_size) for digit in pixels]
        self.images = torch.stack([to_tensor(image.convert(MODES[channels])) for image in resized])
        self.labels = digits[chosen].tolist() if labels else None
        self.class_names = [str(digit) for digit in range(10)] if labels else []

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, index: int, epoch: int) -> ImageTensor | tuple[ImageTensor, int]:
        """Returns digit `index`, the same in every epoch."""
        self.check_index(index)
        image = self.images[index].clone()  # callers may write to it without changing the dataset
        return image if self.labels is None else (image, self.labels[index])

    def class_labels(self) -> np.ndarray | None:
        return None if self.labels is None else np.array(self.labels)

    def fingerprint(self) -> str:
        """Returns a hash of the split."""
        return hashlib.sha256(f"digits {self.split}".encode()).hexdigest()
