"""Images that are decoded when they are asked for: what a folder of them and shards of them share."""

import warnings
from abc import abstractmethod
from functools import cached_property
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from diffusion_framework.data.dataset import ImageDataset, Picture
from diffusion_framework.data.images.decode import (
    BrokenImageError,
    crop_and_resize,
    decode_image,
    is_deep_file,
    picture_formats,
    to_tensor,
)
from diffusion_framework.data.images.deep import ValueRangeError


class EncodedImages(ImageDataset):
    """Images of any format and size, each decoded, cropped and resized anew every time.

    Args:
        image_size: Side of the square images, or (height, width). Cropped to fit, never stretched.
        channels: 1 for grey, 3 for RGB, 4 for RGBA, which keeps transparency.
        crop: Where to crop: center, or random for another place in each epoch.
        background: Red, green and blue (0 to 255) behind transparent pixels, for 1 and 3 channels.
        broken: An image that cannot be decoded is an error, or skip: warn, and take the next one.
        convert_image_to: A Pillow mode that colours go through, such as L for grey pictures in RGB.
        seed: Of the random crops.
        value_range: Smallest and largest value of all pictures of more than 8 bits; None is that of their
            type, or [0, 1] for floats.
        bits: 16 keeps the depth of such pictures (uint16), 8 does not; None is 16 if the first picture is one.

    Raises:
        ValueError: an option out of its range.
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
            raise ValueError(f"value_range must rise; got {value_range}")
        if not all(0 <= value <= 255 for value in background):
            raise ValueError(f"background must be three values in 0..255; got {background}")
        if seed < 0:
            raise ValueError(f"seed must not be negative; got {seed}")
        check_mode(convert_image_to)
        self.crop, self.background, self.broken, self.seed = crop, background, broken, seed
        self.convert_image_to = convert_image_to
        self.value_range, self._bits = value_range, bits
        self._skipped: set[int] = set()

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        """8 or 16; reads the header of the first picture if it has to."""
        if self._bits is not None:
            return self._bits
        for index in range(min(len(self), 100)):
            try:
                return 16 if is_deep_file(self.encoded(index)[0]) else 8
            except BrokenImageError:  # will be reported when it is drawn
                continue
        return 8

    @abstractmethod
    def encoded(self, index: int) -> tuple[str | BinaryIO, int | None]:
        """Image `index` as a path or an open file, and its label if there are labels."""

    def draw(self, index: int, epoch: int) -> Picture | tuple[Picture, int]:
        """Image `index`, cropped for `epoch`. If skipping, the next good image stands in for a broken one.

        Raises:
            IndexError: unless 0 <= index < len(self).
            BrokenImageError: for a broken image; with broken="skip", once more than half of the images are.
        """
        self.check_index(index)
        while True:
            source, label = self.encoded(index)
            try:
                picture = self._decode(source, index, epoch)
            except BrokenImageError as error:
                self._skip(index, error)
                index = (index + 1) % len(self)
            else:
                return picture if label is None else (picture, label)

    def _decode(self, source: str | BinaryIO, index: int, epoch: int) -> Picture:
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
                f"Expected pictures of 8 bits, as the first one, got image {index} of more. "
                "Fix: --data.bits 16 keeps its depth, --data.bits 8 does not."
            )
        down, right = 0.5, 0.5
        if self.crop == "random":
            down, right = np.random.default_rng((self.seed, index, epoch)).random(2)
        return to_tensor(crop_and_resize(image, self.image_size, (down, right)), self.channels, self.bits)

    def _skip(self, index: int, error: BrokenImageError) -> None:
        """Warn of a broken image, once in each process; raise if that is not wanted or there are too many."""
        if self.broken == "error":
            raise BrokenImageError(f"{error}; remove it, or set broken: skip") from error
        known = index in self._skipped
        self._skipped.add(index)
        if len(self._skipped) > len(self) // 2:
            raise BrokenImageError(
                f"more than half of the {len(self)} images of {self} are broken; check them; the last one: {error}"
            ) from error
        if not known:
            warnings.warn(f"{error}; skipped ({len(self._skipped)} so far)", stacklevel=2)


def file_endings(extensions: list[str] | None) -> list[str]:
    """Lower-case file endings with their dots: those given in any form, or all of the pictures that are decoded."""
    if extensions is None:
        extensions = [ending for endings in picture_formats().values() for ending in endings]
    return ["." + ending.lower().removeprefix(".") for ending in extensions]


def check_mode(convert_image_to: str | None) -> None:
    """Raises ValueError unless Pillow converts colours to this mode and back."""
    try:
        if convert_image_to is not None:
            Image.new("RGB", (1, 1)).convert(convert_image_to).convert("RGB")
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"convert_image_to must be a Pillow mode such as L or RGB; got {convert_image_to!r}"
        ) from error
