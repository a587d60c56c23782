"""`DataSpace`: two maps between the user's units and the network's range, and what they imply."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from beartype import beartype
from jaxtyping import Bool, jaxtyped
from torch import Tensor, nn

from ..storage.config import RecordsArguments


class DataSpace(RecordsArguments, nn.Module, ABC):
    """Maps data in the user's units to clean samples x0 that a network sees, and back.

    `prepare` is costly and constant, so its result may be cached; `encode` is cheap and runs in
    every training step. `condition` holds the values that came with the data, by name.

    Attributes:
        bounds: Range of encoded data, to which estimates of x0 are clipped; None is never clipped.
        bins: Number of values that a datum can take, evenly spaced over `bounds`; None is
            continuous.
        sigma_data: Standard deviation of encoded data. Objectives, weights and scalings take it
            from here.
        prepares: Whether `prepare` changes data.
        needs_fit: Whether statistics of the training data are still unknown.
    """

    bounds: tuple[float, float] | None = None
    bins: int | None = None
    sigma_data: float = 1.0
    prepares: bool = False

    def build(self, sample_shape: tuple[int, ...]) -> None:
        """Gives statistics their shapes, from that of one encoded sample, without the batch.

        Raises:
            ValueError: a shape that this space cannot have.
        """

    @property
    def needs_fit(self) -> bool:
        return False

    def observe(self, data: Tensor, condition: Mapping[str, Any]) -> None:
        """Adds one batch of prepared training data to the statistics.

        Args:
            data: [batch, ...], after `prepare`.
            condition: The values that came with it.
        """

    def finish(self) -> None:
        """Sets the statistics to those of all the data that was observed.

        Raises:
            ValueError: no data was observed.
        """

    def prepare(self, data: Tensor) -> Tensor:
        """The costly part of the way to the network, without gradients."""
        return data

    @abstractmethod
    def encode(self, data: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Maps prepared data [batch, ...] to x0, in float32 or better.

        On the CPU, data out of range is refused. On other devices, where a check would wait for
        the device, x0 of such a sample is NaN.

        Raises:
            ValueError: data out of range, with the index of the first wrong sample of the batch.
        """

    @abstractmethod
    def decode(self, x0: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """Maps x0 [batch, ...] to the user's units; undoes `encode` and `prepare`.

        The result may be cut off at the ends of the data's range only where the space has `bounds`.
        """

    @jaxtyped(typechecker=beartype)
    def prepare_mask(
        self, mask: Bool[Tensor, "batch *counted"], shape: tuple[int, ...]
    ) -> Bool[Tensor, "batch *encoded"]:
        """Maps a mask of data to one of x0.

        Args:
            mask: True where data counts; over the leading dimensions of data.
            shape: Shape of one encoded sample.
        """
        return mask

    def bits_offset(self) -> float:
        """Bits per dimension to add to those of x0's density for those in the user's units.

        It is log2 |d data / d x0|, averaged over dimensions (change of variables).

        Raises:
            ValueError: data in the user's units has no density.
        """
        raise ValueError(
            f"Expected a space whose units have a density, got {type(self).__name__}. "
            "Fix: evaluate the likelihood of encoded data."
        )

    def pictures(self, data: Tensor) -> Tensor | None:
        """Data in the user's units as images [batch, channels, height, width] in [0, 1].

        None where there is nothing to look at.
        """
        return None


def checked_range(data: Tensor, low: float, high: float, remedy: str) -> Tensor:
    """Returns the data [batch, ...] if all of it lies in [low, high]; see `DataSpace.encode`.

    Raises:
        ValueError: data out of range, on the CPU.
    """
    slack = 1e-5 * (high - low)  # what a resized image is off by rounding
    return _checked(
        data, (data >= low - slack) & (data <= high + slack), f"data in [{low:g}, {high:g}]", remedy
    )


def checked_finite(data: Tensor, remedy: str) -> Tensor:
    """Returns the data [batch, ...] if none of it is NaN or infinite; see `DataSpace.encode`.

    Raises:
        ValueError: NaN or infinity, on the CPU.
    """
    return _checked(data, torch.isfinite(data), "finite data", remedy)


def _checked(data: Tensor, fits: Tensor, expected: str, remedy: str) -> Tensor:
    """Raises on the CPU; elsewhere sets wrong samples to NaN, without waiting for the device."""
    fits = fits.flatten(1).all(dim=1) if fits.ndim > 1 else fits
    if data.device.type != "cpu":
        return torch.where(fits.reshape(-1, *(1,) * (data.ndim - 1)), data, math.nan)
    if not fits.all():
        index = int((~fits).nonzero()[0])
        low, high = (float(bound) for bound in data[index].aminmax())
        raise ValueError(
            f"Expected {expected}, got {low:g} to {high:g} in sample {index} of the batch. "
            f"Fix: {remedy}."
        )
    return data


def at_least_float32(data: Tensor) -> Tensor:
    """The data as floats of at least 32 bits."""
    return data.to(torch.promote_types(data.dtype, torch.float32))
