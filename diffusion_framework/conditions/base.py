"""`Conditioner`: a user's value to keywords of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

from ..storage.config import RecordsArguments

Keywords = dict[str, Tensor]
"""What a network is given by name, each [batch, ...]."""


class Conditioner(RecordsArguments, nn.Module, ABC):
    """Turns the user's value of one condition into keywords of the network.

    Shapes of keywords must not depend on the value, so that batches can be joined.

    Args:
        keywords: Names of the keywords that `encode` gives.
        dropout: Share of training samples that are told "none" in place of their value, in [0, 1);
            above 0 for guidance (Ho & Salimans 2022). A parameter that stands for "none" should
            exist only then: where it is never used, it has no gradient.

    Raises:
        ValueError: dropout out of range.
    """

    def __init__(self, keywords: tuple[str, ...], dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"Expected dropout in [0, 1), got {dropout}. Fix: 0.1 suits guidance.")
        self.keywords, self.dropout = keywords, dropout
        self.register_buffer("_on", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it computes; values are moved there."""
        return self.get_buffer("_on").device

    def build(self, sample_shape: tuple[int, ...]) -> None:
        """Learns the shape of one encoded sample, without the batch."""

    def repeat(self, value: Any, batch: int) -> Any:
        """Returns the value for a whole batch, where it clearly is a single one; else as it is."""
        return value

    @abstractmethod
    def encode(self, value: Any) -> Keywords:
        """Maps the value to keywords of the network, one row for each sample.

        Raises:
            ValueError: a value of another kind, shape or range than expected, in one line.
        """

    @abstractmethod
    def none(self, like: Keywords) -> Keywords:
        """What stands for no condition, in the shapes of encoded values."""

    def flip(self, value: Any, where: Tensor) -> Any:
        """The value that belongs to data that is mirrored left to right.

        Args:
            value: The value of a batch.
            where: [batch], True where the data is mirrored.
        """
        return value

    def pictures(self, value: Any) -> Tensor | list[str] | None:
        """What to show of the value beside a preview.

        Images [batch, channels, height, width] in [0, 1], a text for each sample, or nothing.
        """
        return None

    @property
    def needs_fit(self) -> bool:
        """Whether statistics of the training data are still unknown."""
        return False

    def observe(self, value: Any) -> None:
        """Adds the values of one batch of training data to the statistics."""

    def finish(self) -> None:
        """Sets the statistics to those of all values that were observed."""

    @final  # type: ignore[misc]
    def forward(
        self, value: Any, *, drop: bool = False, generator: torch.Generator | None = None
    ) -> Keywords:
        """The keywords of a batch.

        Args:
            value: The user's value.
            drop: Whether to replace a share `dropout` of the samples by "none".
            generator: For that choice; None is torch's default one.
        """
        encoded = self.encode(value)
        if not drop or not self.dropout:
            return encoded
        first = next(iter(encoded.values()))
        dropped = torch.rand(len(first), generator=generator, device=first.device) < self.dropout
        none = self.none(
            encoded
        )  # in each step, so that its parameters have a gradient in all processes
        return {
            keyword: torch.where(
                _column(dropped, encoded[keyword]), none[keyword], encoded[keyword]
            )
            for keyword in encoded
        }


def trained_none(nothing: nn.Parameter | None) -> nn.Parameter:
    """The parameter that stands for "none".

    Raises:
        ValueError: there is none, as the conditioner has no dropout.
    """
    if nothing is None:
        raise ValueError(
            "Expected a conditioner with dropout, got one that is never dropped. Fix: dropout=0.1."
        )
    return nothing


def checked_samples(value: Tensor, fits: Tensor, expected: str, remedy: str) -> None:
    """Raises ValueError for values on the CPU that do not fit; elsewhere, a check would wait.

    Args:
        value: [batch, ...].
        fits: [batch, ...] of bool.
        expected: What was expected, in words.
        remedy: What to do about it.
    """
    if fits.device.type != "cpu" or bool(fits.all()):
        return
    index = int((~fits.reshape(len(fits), -1).all(dim=1)).nonzero()[0])
    raise ValueError(
        f"Expected {expected}, got {_short(value[index])} in sample {index} of the batch. "
        f"Fix: {remedy}."
    )


def as_tensor(value: Any, device: torch.device, expected: str) -> Tensor:
    """The value as a tensor on the device.

    Raises:
        ValueError: a value that is no tensor, array or nested list of numbers, in one line.
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
