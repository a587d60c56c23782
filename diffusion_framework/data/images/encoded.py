"""Datasets that decode an image each time it is drawn: the base of folders and shards."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from ...process.noise import mix
from ..dataset import ImageDataset
from .decode import (
    MODES,
    BrokenImageError,
    decode_image,
    image_formats,
    is_deep_file,
    quoted_name,
    to_channels,
    to_plain_mode,
)
from .deep import LostDepthError, ValueRangeError
from .planes import (
    decode_planes,
    needs_planes,
    padding,
    planes_to_tensor,
)
from .resize import Fit, fit_image, to_tensor
from .transforms import Transform, transformed
from .values import as_sample

_CHECKED_FOR_DARKNESS = 8  # first images


class EncodedImages(ImageDataset):
    """Images of any format and size, decoded, cropped and resized each time they are drawn.

    An image has at most `PIL.Image.MAX_IMAGE_PIXELS` pixels (89 million), or as many values if it
    has many channels or colours of more than 8 bits. A larger one counts as broken. Decoding one
    then takes at most some 2 GB and 10 seconds.

    Args:
        image_size: Side of the square images, or (height, width).
        channels: 1 for grey, 3 for RGB, 4 for RGBA, which keeps transparency; another number for
            TIFF files with so many channels.
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
        fit: Way to bring images to image_size: 'crop' to its proportions, 'pad' with `background`,
            or 'stretch'.
        transform: Own function of each decoded image, a Pillow image. It returns an image, which is
            then brought to image_size, or the sample as a tensor [channels, height, width]. Global
            random numbers in it are functions of (seed, image, epoch). Not for flags and files.

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
        fit: Fit = "crop",
        transform: Transform | None = None,
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
        if crop == "random" and fit != "crop":
            raise ValueError(
                f"Expected fit 'crop' with random crops, got {fit!r}. Fix: set crop to center."
            )
        check_mode(convert_image_to)
        self.fit, self.transform = fit, transform
        self.crop, self.background, self.broken, self.seed = crop, background, broken, seed
        self.convert_image_to = convert_image_to
        self.value_range, self._bits = value_range, bits
        self._skipped: set[int] = set()

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        """Bits per channel, 8 or 16; by default the depth of the first image with a good header."""
        if self._bits is not None:
            self._warn_if_dark()
            return self._bits
        for index in range(min(len(self), 100)):
            try:
                source = self.encoded(index)[0]
                keeps_depth = self.convert_image_to is None
                if self.channels not in MODES or needs_planes(source, keeps_depth):
                    is_deep = decode_planes(source, self.channels, value_range=self.value_range)[1]
                else:
                    is_deep = is_deep_file(source)
                if is_deep:
                    self._warn_if_dark()
                return 16 if is_deep else 8
            except BrokenImageError:  # reported when the image is drawn
                continue
        return 8

    @abstractmethod
    def encoded(self, index: int) -> tuple[str | BinaryIO, Mapping[str, Any]]:
        """Returns the path or the open file of image `index`, and its conditions by name."""

    def draw(self, index: int, epoch: int) -> Any:
        """Returns image `index`, cropped for `epoch`, alone or in a pair with its conditions.

        With broken='skip', the next good image (the first after the last) replaces a broken one.

        Raises:
            IndexError: unless 0 <= index < len(self).
            BrokenImageError: the image is broken; with broken='skip', only once more than half of
                all images are known to be broken.
        """
        image, _, values = self.drawn(index, epoch)
        return as_sample(image, values)

    def drawn(self, index: int, epoch: int) -> tuple[Tensor, int, Mapping[str, Any]]:
        """Returns an image as `draw` does, its own index, and its conditions by name."""
        self.check_index(index)
        while True:
            source, values = self.encoded(index)
            try:
                image = self._decode(source, index, epoch, self.channels)
                return image, index, {**values, **self.pictures_beside(image, index, epoch)}
            except BrokenImageError as error:
                self._skip(index, error)
                index = (index + 1) % len(self)

    def pictures_beside(self, image: Tensor, index: int, epoch: int) -> Mapping[str, Tensor]:
        """Returns the conditions of an image that are pictures themselves, by name."""
        return {}

    def _decode(self, source: str | BinaryIO, index: int, epoch: int, channels: int) -> Tensor:
        keeps_depth = self._bits != 8 and self.convert_image_to is None
        if channels not in MODES or needs_planes(source, keeps_depth):
            return self._decode_planes(source, index, epoch, channels)
        image = decode_image(
            source,
            channels,
            self.background,
            self.convert_image_to,
            at_least=self.image_size,
            value_range=self.value_range,
            bits=16 if self._bits is None else self._bits,
        )
        self._check_depth(image.mode == "F", source)
        if self.transform is not None:
            seed, shape = mix(self.seed, index, epoch), (channels, *self.image_size)
            result = transformed(image, self.transform, seed, shape, quoted_name(source))
            if isinstance(result, Tensor):
                return result
            image = result
            if image.mode not in (MODES[channels], "F"):
                image = to_channels(to_plain_mode(image), channels, self.background, None)
        position = self._position(index, epoch)
        fitted = fit_image(image, self.image_size, self.fit, position, self.background)
        return to_tensor(fitted, channels, self.bits)

    def _decode_planes(
        self, source: str | BinaryIO, index: int, epoch: int, channels: int
    ) -> Tensor:
        """Decodes an image of many channels, or of colours of more than 8 bits."""
        if self.transform is not None:
            raise ValueError(
                "Expected images that Pillow holds for transform, got one of many channels or more "
                f"than 8 bits in {quoted_name(source)}. Fix: set bits=8, or leave transform out."
            )
        planes, is_deep = decode_planes(source, channels, self.background, self.value_range)
        self._check_depth(is_deep, source)
        beside = padding(channels, self.background)
        position = self._position(index, epoch)
        fitted = [
            fit_image(plane, self.image_size, self.fit, position, colour)
            for plane, colour in zip(planes, beside, strict=True)
        ]
        return planes_to_tensor(fitted, self.bits)

    def _warn_if_dark(self) -> None:
        """Warns if the first images use an eighth of their range or less, as 12-bit values do."""
        if self.value_range is not None:
            return
        largest = 0.0
        for index in range(min(len(self), _CHECKED_FOR_DARKNESS)):
            # reported when the image is drawn
            with suppress(BrokenImageError, LostDepthError):
                source = self.encoded(index)[0]
                if self.channels not in MODES or needs_planes(source):
                    planes = decode_planes(source, self.channels, self.background)[0]
                    largest = max(largest, *(float(np.max(np.asarray(plane))) for plane in planes))
                elif is_deep_file(source):
                    image = decode_image(source, 1, self.background, bits=16)
                    largest = max(largest, float(np.max(np.asarray(image))))
        if 0 < largest <= 65535 / 8:
            share = largest / 65535
            warnings.warn(
                f"The first images of {self} reach only {share:.3g} of the range of their type and "
                "will look dark. Fix: if other images do not go further, give their range, "
                "--data.value_range lo,hi, such as 0,4095 for 12 bits.",
                stacklevel=2,
            )

    def _position(self, index: int, epoch: int) -> tuple[float, float]:
        """Returns the (vertical, horizontal) position of the crop in 0..1."""
        if self.crop == "center":
            return 0.5, 0.5
        vertical, horizontal = np.random.default_rng((self.seed, index, epoch)).random(2)
        return vertical, horizontal

    def _check_depth(self, is_deep: bool, source: str | BinaryIO) -> None:
        if is_deep and self._bits is None and self.bits == 8:
            raise ValueRangeError(
                "Expected images of 8 bits, like the first one, got more bits in "
                f"{quoted_name(source)}. "
                "Fix: set --data.bits 16 to keep its depth, or --data.bits 8 to reduce it."
            )

    def _skip(self, index: int, error: BrokenImageError) -> None:
        """Warns of a broken image, once in each process.

        Raises:
            BrokenImageError: with broken='error', or for more than half of the images.
        """
        if self.broken == "error":
            message = str(error).removesuffix(".")
            raise BrokenImageError(f"{message}, or set --data.broken skip.") from error
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
