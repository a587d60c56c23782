"""The handwritten digits that come with scikit-learn: a real data set without a download."""

import hashlib
from typing import Literal

import numpy as np
import torch
from beartype import beartype
from PIL import Image

from diffusion_framework.data.dataset import ImageDataset, Picture
from diffusion_framework.data.images.decode import MODES, crop_and_resize, to_tensor


class Digits(ImageDataset):
    """1797 handwritten digits of 8 x 8 pixels (scikit-learn's `load_digits`), its values 0..16 as 0..255."""

    @beartype
    def __init__(
        self,
        image_size: int | tuple[int, int] = 8,
        channels: int = 1,
        *,
        labels: bool = False,
        split: Literal["all", "train", "test"] = "all",
    ):
        """Reads and resizes all digits.

        Args:
            image_size: Side of the square images, or [height, width]; 8 keeps the pixels as they are.
            channels: 1 for grey, 3 for RGB, 4 for RGBA with full opacity.
            labels: Give each image with its digit.
            split: all, or test for every fifth image of each digit, or train for the others.

        Raises:
            ValueError: for a size below 1 and for channels other than 1, 3 or 4.
        """
        from sklearn.datasets import load_digits  # slow to import, and only this class needs it

        super().__init__(image_size, channels)
        self.split = split
        values, digits = load_digits(return_X_y=True)
        # within each digit: long runs go 0, 1, ..., 9, so that every fifth of all would be a 0 or a 5
        rank = np.array([np.count_nonzero(digits[:i] == digit) for i, digit in enumerate(digits)])
        held_out = rank % 5 == 0
        chosen = {"all": np.full_like(held_out, True), "train": ~held_out, "test": held_out}[split]
        pixels = np.rint(values[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        pictures = [crop_and_resize(Image.fromarray(digit), self.image_size) for digit in pixels]
        self.pictures = torch.stack([to_tensor(picture.convert(MODES[channels])) for picture in pictures])
        self.labels = digits[chosen].tolist() if labels else None
        self.class_names = [str(digit) for digit in range(10)] if labels else []

    def __len__(self) -> int:
        return len(self.pictures)

    def draw(self, index: int, epoch: int) -> Picture | tuple[Picture, int]:
        """Digit `index`, the same in every epoch."""
        self.check_index(index)
        picture = self.pictures[index].clone()  # the caller's own: writing to it leaves the data set alone
        return picture if self.labels is None else (picture, self.labels[index])

    def fingerprint(self) -> str:
        return hashlib.sha256(f"digits {self.split}".encode()).hexdigest()
