"""Datasets that decode an image each time it is drawn: the base of folders and shards."""

import warnings
from abc import abstractmethod
from functools import cached_property
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from diffusion_framework.data.dataset import ImageDataset, ImageTensor
from diffusion_framework.data.images.decode import (
    BrokenImageError,
    decode_image,
    image_formats,
    is_deep_file,
)
from diffusion_framework.data.images.deep import ValueRangeError
from diffusion_framework.data.images.resize import crop_and_resize, to_tensor


class EncodedImages(ImageDataset):
    """Images of any format and size, decoded, cropped and resized each time they are drawn.

    Args:
        image_size: Side of the square images, or (height, width). Cropped to fit, never stretched.
        channels: 1 for grey, 3 for RGB, 4 for RGBA, which keeps transparency.
        crop: Position of the crop: 'center', or 'random', which differs in each epoch.
        background: Red, green and blue in 0..255 behind transparent pixels, for 1 and 3 channels.
        broken: Reaction to an image that cannot be decoded: 'error', or 'skip', which warns and
            takes the next image.
        convert_image_to: Pillow mode that colours are converted to and back, such as L for grey
            images in RGB.
        seed: Seed for the random crops.
        value_range: Smallest and largest value of all images of more than 8 bits; None for the
            range of their integer type, or [0, 1] for floats.
        bits: Bits per channel of the samples: 16 keeps the depth of images of more than 8 bits,
            8 reduces it. None means 16 if the first image has more than 8 bits, otherwise 8.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        channels: int,
        crop: Literal["center", "random"],
        background: tuple[int, int, int],
        broken: Literal["error", "skip"],
        convert_image_to: str | None,
        seed: int,
        value_range: tuple[float, float] | None = None,
        bits: Literal[8, 16] | None = None,
    ):
        super().__init__(image_size, channels)
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(
                f"Expected value_range to rise, got {value_range}. "
                "Fix: give the smaller value first."
            )
        if not all(0 <= value <= 255 for value in background):
            raise ValueError(
                f"Expected background in 0..255, got {background}. Fix: try 255, 255, 255."
            )
        if seed < 0:
            raise ValueError(f"Expected seed of at least 0, got {seed}. Fix: choose another seed.")
        check_mode(convert_image_to)
        self.crop, self.background, self.broken, self.seed = crop, background, broken, seed
        self.convert_image_to = convert_image_to
        self.value_range, self._bits = value_range, bits
        self._skipped: set[int] = set()

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        """Bits per channel, 8 or 16; by default the depth of the first image with a good header."""
        if self._bits is not None:
            return self._bits
        for index in range(min(len(self), 100)):
            try:
                return 16 if is_deep_file(self.encoded(index)[0]) else 8
            except BrokenImageError:  # reported when the image is drawn
                continue
        return 8

    @abstractmethod
    def encoded(self, index: int) -> tuple[str | BinaryIO, int | None]:
        """Returns the path or the open file of image `index`, and its label or None."""

    def draw(self, index: int, epoch: int) -> ImageTensor | tuple[ImageTensor, int]:
        """Returns image `index`, cropped for `epoch`, or a pair (image, label).

        With broken='skip', the next good image (the first after the last) replaces a broken one.

        Raises:
            IndexError: unless 0 <= index < len(self).
            BrokenImageError: the image is broken; with broken='skip', only once more than half of
                all images are known to be broken.
        """
        self.check_index(index)
        while True:
            source, label = self.encoded(index)
            try:
                image = self._decode(source, index, epoch)
            except BrokenImageError as error:
                self._skip(index, error)
                index = (index + 1) % len(self)
            else:
                return image if label is None else (image, label)

    def _decode(self, source: str | BinaryIO, index: int, epoch: int) -> ImageTensor:
        image = decode_image(
            source,
            self.channels,
            self.background,
            self.convert_image_to,
            at_least=self.image_size,
            value_range=self.value_range,
            bits=16 if self._bits is None else self._bits,
        )
        if image.mode == "F" and self.bits == 8:
            raise ValueRangeError(
                f"Expected images of 8 bits, like the first one, got more bits in image {index}. "
                "Fix: set --data.bits 16 to keep its depth, or --data.bits 8 to reduce it."
            )
        vertical, horizontal = 0.5, 0.5
        if self.crop == "random":
            vertical, horizontal = np.random.default_rng((self.seed, index, epoch)).random(2)
        return to_tensor(
            crop_and_resize(image, self.image_size, (vertical, horizontal)),
            self.channels,
            self.bits,
        )

    def _skip(self, index: int, error: BrokenImageError) -> None:
        """Warns of a broken image, once in each process.

        Raises:
            BrokenImageError: with broken='error', or for more than half of the images.
        """
        if self.broken == "error":
            message = str(error).removesuffix(".")
            raise BrokenImageError(f"{message}, or set broken: skip.") from error
        warned = index in self._skipped
        self._skipped.add(index)
        if len(self._skipped) > len(self) // 2:
            raise BrokenImageError(
                f"Expected at most half of the {len(self)} images of {self} to be broken, "
                f"got {len(self._skipped)}, the last one with the error: {error}"
            ) from error
        if not warned:
            warnings.warn(
                f"Skipped a broken image ({len(self._skipped)} so far): {error}", stacklevel=2
            )


def file_endings(extensions: list[str] | None) -> list[str]:
    """Returns file endings in lower case with the dot.

    Args:
        extensions: Endings in any case, with or without the dot; None for all decoded formats.
    """
    if extensions is None:
        extensions = [ending for endings in image_formats().values() for ending in endings]
    return ["." + ending.lower().removeprefix(".") for ending in extensions]


def check_mode(convert_image_to: str | None) -> None:
    """Raises ValueError unless Pillow converts RGB images to this mode and back."""
    try:
        if convert_image_to is not None:
            Image.new("RGB", (1, 1)).convert(convert_image_to).convert("RGB")
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"Expected a Pillow mode as convert_image_to, got {convert_image_to!r}. "
            "Fix: take L for grey, RGB, or null."
        ) from error
