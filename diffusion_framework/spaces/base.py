"""Base class of data spaces, which map between the user's units and the network's range."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..parts.type_checks import typed
from ..storage.config import RecordsArguments


class DataSpace(RecordsArguments, nn.Module, ABC):
    """Map between data in the user's units and clean samples x0 in the network's range.

    `prepare` is expensive and deterministic, so its result may be cached. `encode` is cheap and
    runs in every training step. `condition` holds the values that belong to the data, by name.

    Attributes:
        bounds: Range of encoded data, to which estimates of x0 are clipped; None for no clipping.
        bins: Number of values of one element of the data, evenly spaced over `bounds`; None for
            continuous data.
        sigma_data: Standard deviation of encoded data, the default of objectives, loss weights and
            input scalings.
        prepares: Whether `prepare` changes data.
        flips: Whether data are pictures, whose mirror images are data as well.
        needs_fit: Whether statistics of the training data are still unknown.
        sampler: Name of the default sampler; None for no preference.
    """

    bounds: tuple[float, float] | None = None
    bins: int | None = None
    sigma_data: float = 1.0
    prepares: bool = False
    flips: bool = False
    sampler: str | None = None

    def build(self, sample_shape: tuple[int, ...]) -> None:
        """Allocates the statistics for encoded samples of a shape, without the batch dimension.

        Raises:
            ValueError: a shape that the space does not support.
        """

    @property
    def needs_fit(self) -> bool:
        return False

    def observe(self, data: Tensor, condition: Mapping[str, Any]) -> None:
        """Updates the statistics with one batch of training data.

        Args:
            data: Data [batch, ...], after `prepare`.
            condition: Values that belong to the data, by name.
        """

    def finish(self) -> None:
        """Computes the statistics of all observed data and keeps them.

        Raises:
            ValueError: no data was observed.
        """

    def prepare(self, data: Tensor) -> Tensor:
        """Returns data after the expensive, deterministic part of encoding, without gradients."""
        return data

    @abstractmethod
    def encode(self, data: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Maps prepared data [batch, ...] to x0, in float32 or higher precision.

        On the CPU, invalid data raises an error. On other devices, a check would wait for the
        device; x0 of an invalid sample is NaN instead.

        Raises:
            ValueError: invalid data; the message has the index of the first invalid sample.
        """

    @abstractmethod
    def decode(self, x0: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Maps x0 [batch, ...] to the user's units, inverting `encode` and `prepare`.

        Only a space with `bounds` may clip the result to the range of the data.
        """

    @typed
    def prepare_mask(
        self, mask: Bool[Tensor, "batch *counted"], shape: tuple[int, ...]
    ) -> Bool[Tensor, "batch *encoded"]:
        """Maps a loss mask of data to a mask of x0.

        Args:
            mask: Mask over leading dimensions of the data, True where the loss counts.
            shape: Shape of one encoded sample.
        """
        return mask

    def bits_offset(self) -> float:
        """Returns log2 |d data / d x0|, averaged over dimensions (change of variables).

        Added to the bits per dimension of x0, it gives the bits per dimension in the user's units.

        Raises:
            ValueError: data in the user's units has no density.
        """
        raise ValueError(
            f"Expected a data space with a density, got {type(self).__name__}. "
            "Fix: evaluate the likelihood of encoded data."
        )

    def pictures(self, data: Tensor) -> Tensor | None:
        """Returns data in the user's units as images [batch, channels, height, width] in [0, 1].

        Returns None for data that cannot be shown as images.
        """
        return None


@final
class InvalidSampleError(ValueError):
    """Raised for data that a space refuses, with the index of the sample.

    Args:
        expected: Description of valid data.
        got: Description of the data.
        index: Index of the sample.
        remedy: Advice that follows "Fix:" in the message.
        source: Data in which the samples are counted.
    """

    def __init__(
        self, expected: str, got: str, index: int, remedy: str, source: str = "the batch"
    ) -> None:
        self.expected, self.got, self.index, self.remedy = expected, got, index, remedy
        super().__init__(
            f"Expected {expected}, got {got} in sample {index} of {source}. Fix: {remedy}."
        )

    def counted_in(self, source: str, index: int) -> "InvalidSampleError":
        """Returns the error with the index of the sample in other data, such as the dataset."""
        return InvalidSampleError(self.expected, self.got, index, self.remedy, source)


def checked_range(data: Tensor, low: float, high: float, remedy: str) -> Tensor:
    """Returns data [batch, ...] that lies in [low, high]; see `DataSpace.encode`.

    Raises:
        ValueError: data out of range, on the CPU.
    """
    slack = 1e-5 * (high - low)  # rounding error of a resized image
    return _checked(
        data, (data >= low - slack) & (data <= high + slack), f"data in [{low:g}, {high:g}]", remedy
    )


def checked_finite(data: Tensor, remedy: str) -> Tensor:
    """Returns finite data [batch, ...]; see `DataSpace.encode`.

    Raises:
        ValueError: NaN or infinity, on the CPU.
    """
    return _checked(data, torch.isfinite(data), "finite data", remedy)


def _checked(data: Tensor, fits: Tensor, expected: str, remedy: str) -> Tensor:
    """Raises for invalid samples on the CPU; elsewhere sets them to NaN without synchronising."""
    fits = fits.flatten(1).all(dim=1) if fits.ndim > 1 else fits
    if data.device.type != "cpu":
        return torch.where(fits.reshape(-1, *(1,) * (data.ndim - 1)), data, math.nan)
    _require(data, fits, expected, remedy)
    return data


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns a mask [batch, ...] that covers leading dimensions of samples; 1 counts for all.

    Raises:
        ValueError: a mask of another shape.
    """
    covered = mask.shape[1:]
    fits = all(n in (1, m) for n, m in zip(covered, shape, strict=False))
    if len(covered) > len(shape) or not fits:
        raise ValueError(
            f"Expected a mask over leading dimensions of samples {[*shape]}, got {[*covered]}. "
            f"Fix: give one of shape {[*shape]}, in which dimensions may be 1."
        )
    return mask


def check_encoded(data: Tensor, x0: Tensor) -> None:
    """Raises InvalidSampleError for invalid samples on any device, which it waits for.

    Args:
        data: Data in the user's units, [batch, ...].
        x0: What `encode` made of it, [batch, ...].
    """
    if x0.device.type != "meta":
        remedy = "remove NaN and infinity, and scale the data to the range of its space"
        fits = torch.isfinite(x0).flatten(1).all(dim=1).cpu()
        _require(data.cpu(), fits, "data in the range of its space", remedy)


def _require(data: Tensor, fits: Tensor, expected: str, remedy: str) -> None:
    """Raises InvalidSampleError for the first sample on the CPU that does not fit, [batch]."""
    if not fits.all():
        index = int((~fits).nonzero()[0])
        low, high = (float(bound) for bound in at_least_float32(data[index]).aminmax())
        raise InvalidSampleError(expected, f"{low:g} to {high:g}", index, remedy)


def flipped(images: Tensor, where: Tensor) -> Tensor:
    """Returns images [batch, ..., width], of which those at True in `where` are mirrored."""
    if images.dtype == torch.uint16:  # for which few devices flip
        return flipped(images.view(torch.int16), where).view(torch.uint16)
    return torch.where(where.reshape(-1, *(1,) * (images.ndim - 1)), images.flip(-1), images)


def at_least_float32(data: Tensor) -> Tensor:
    """Returns data as floats of at least 32 bits."""
    return data.to(torch.promote_types(data.dtype, torch.float32))
