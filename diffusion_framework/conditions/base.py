"""Base class of conditioners, which turn a user's value into keyword arguments of the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

from ..storage.config import RecordsArguments
from .warp import Warp

Keywords = dict[str, Tensor]
"""Keyword arguments of a network by name, each [batch, ...]."""


class Conditioner(RecordsArguments, nn.Module, ABC):
    """Module that encodes the user's value of one condition as keyword arguments of the network.

    The shapes of the encoded tensors must not depend on the value, so that batches can be joined.
    A derived class should own a learned "none" only with dropout: an unused parameter gets no
    gradient, which stops distributed training.

    Args:
        keywords: Names of the keyword arguments that `encode` returns.
        dropout: Probability that a training sample gets "none" in place of its value, in [0, 1);
            classifier-free guidance needs more than 0 (Ho & Salimans 2022).

    Attributes:
        flips: Whether `flip` returns the value of a mirrored image. Training flips images only if
            all of their conditions can follow.
        augments: Whether training draws the value, as `draw` does. A value that is missing
            elsewhere is "none", whatever the dropout.

    Raises:
        ValueError: dropout out of range.
    """

    flips: bool = False
    augments: bool = False

    def __init__(self, keywords: tuple[str, ...], dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(
                f"Expected dropout in [0, 1), got {dropout}. Fix: take 0.1 for guidance."
            )
        self.keywords, self.dropout = keywords, dropout
        self.register_buffer("_device_marker", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Device of the module, to which values are moved."""
        return self.get_buffer("_device_marker").device

    def build(self, sample_shape: tuple[int, ...]) -> None:
        """Receives the shape of one encoded sample, without the batch dimension."""

    def repeat(self, value: Any, batch: int) -> Any:
        """Returns a value of a single sample repeated `batch` times, any other value unchanged."""
        return value

    @abstractmethod
    def encode(self, value: Any) -> Keywords:
        """Returns the value as keyword arguments of the network, one row for each sample.

        Raises:
            ValueError: a value of an unexpected type, shape or range.
        """

    @abstractmethod
    def none(self, batch: int) -> Keywords:
        """Returns the encoding of "none" for each sample of a batch, in the shapes of `encode`.

        Raises:
            ValueError: the conditioner has no "none", because it has no dropout.
        """

    def augment(
        self, encoded: Keywords, training: bool, generator: torch.Generator | None
    ) -> Keywords:
        """Returns what the network is told in place of `encoded`, such as noised images.

        Args:
            encoded: Keyword arguments that `encode` returned.
            training: Whether the network is trained; else no randomness may be drawn.
            generator: Source of randomness; None for PyTorch's default generator.
        """
        return encoded

    def draw(
        self, batch: int, device: torch.device, generator: torch.Generator | None
    ) -> Warp | None:
        """Returns random transformations of a batch of training images, or None for none."""
        return None

    def warp(self, encoded: Keywords, warp: Warp) -> Keywords:
        """Returns encoded values that match images which training transforms.

        The default leaves them, which is right for all but images, as the network is told both.
        """
        return encoded

    def flip(self, value: Any, where: Tensor) -> Any:
        """Returns the value that matches data of which some samples are flipped horizontally.

        It is called only if `flips` is True.

        Args:
            value: User's value for a batch.
            where: Boolean mask [batch] of the flipped samples.
        """
        return value

    def pictures(self, value: Any) -> Tensor | list[str] | None:
        """Returns a view of the value to show beside a preview, or None.

        The view is images [batch, channels, height, width] in [0, 1], or one text for each sample.
        """
        return None

    @property
    def needs_fit(self) -> bool:
        """Whether statistics of the training data are still unknown."""
        return False

    def observe(self, value: Any) -> None:
        """Updates the statistics with the values of one batch of training data."""

    def finish(self) -> None:
        """Computes the statistics of all observed values and keeps them."""

    @final  # type: ignore[misc]
    def forward(
        self,
        value: Any,
        *,
        drop: bool = False,
        generator: torch.Generator | None = None,
        warp: Warp | None = None,
    ) -> Keywords:
        """Returns the keyword arguments of the network for a batch.

        Args:
            value: User's value for the batch.
            drop: Whether to `augment` the values as in training, and to replace samples by "none",
                each with probability `dropout`.
            generator: Source of randomness for both; None for PyTorch's default generator.
            warp: Transformations of the images of the batch; None for none.
        """
        encoded = self.encode(value)
        encoded = encoded if warp is None else self.warp(encoded, warp)
        encoded = self.augment(encoded, drop, generator)
        if not drop or not self.dropout:
            return encoded
        first = next(iter(encoded.values()))
        dropped = torch.rand(len(first), generator=generator, device=first.device) < self.dropout
        # computed even if nothing is dropped: its parameters need a gradient in every process
        none = self.none(len(first))
        return {
            keyword: torch.where(_column(dropped, given), none[keyword].to(given), given)
            for keyword, given in encoded.items()
        }


def trained_none(nothing: nn.Parameter | None) -> nn.Parameter:
    """Returns the learned "none" of a conditioner.

    Raises:
        ValueError: the conditioner has none, because it has no dropout.
    """
    if nothing is None:
        raise ValueError(
            "Expected a conditioner with dropout, got one without. Fix: train it with dropout=0.1."
        )
    return nothing


def checked_samples(value: Tensor, fits: Tensor, expected: str, remedy: str) -> None:
    """Raises ValueError if a value on the CPU does not fit.

    Values on other devices are not checked, because a check would wait for the device.

    Args:
        value: Values [batch, ...].
        fits: Boolean mask [batch, ...] of the numbers that fit.
        expected: Description of fitting values, which follows "Expected" in the error.
        remedy: Advice that follows "Fix:" in the error.
    """
    if fits.device.type != "cpu" or bool(fits.all()):
        return
    index = int((~fits.reshape(len(fits), -1).all(dim=1)).nonzero()[0])
    raise ValueError(
        f"Expected {expected}, got {_short(value[index])} in sample {index} of the batch. "
        f"Fix: {remedy}."
    )


def as_tensor(value: Any, device: torch.device, expected: str) -> Tensor:
    """Returns a value as a tensor on a device.

    Args:
        value: A tensor, an array, or a nested list of numbers or tensors.
        device: Device of the result.
        expected: Description of the value, which follows "Expected" in the error.

    Raises:
        ValueError: a value of another type.
    """
    try:
        if isinstance(value, list | tuple) and value and all(isinstance(v, Tensor) for v in value):
            value = torch.stack(list(value))
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected {expected}, got {_short(value)}. "
            "Fix: give a tensor, an array or a list of numbers."
        ) from error


def _short(value: Any) -> str:
    text = (
        str(value.tolist())
        if isinstance(value, Tensor) and value.numel() < 8
        else type(value).__name__
    )
    if isinstance(value, Tensor) and value.numel() >= 8:
        low, high = (float(v) for v in value.float().aminmax())
        text = f"{low:g} to {high:g}"
    return repr(value)[:40] if isinstance(value, str) else text


def _column(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *(1,) * (like.ndim - 1))
