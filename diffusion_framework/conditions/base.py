"""`Conditioner`: a user's value to keywords of a network.

`Conditions`: all of a model's, by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
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


@final
@dataclass(frozen=True, eq=False)
class BoundConditions:
    """What one batch is told: made once for a trajectory, and the same at each of its steps.

    Attributes:
        conditions: The conditioners.
        values: The user's values by name.
        parts: Keywords of the network by the name of their condition.
    """

    conditions: Conditions
    values: Mapping[str, Any]
    parts: Mapping[str, Keywords]

    @property
    def keywords(self) -> Keywords:
        """All keywords of the network."""
        return {keyword: v for part in self.parts.values() for keyword, v in part.items()}

    def without(self, names: Collection[str] | None = None) -> BoundConditions:
        """The same, where some conditions are told "none".

        Args:
            names: Names of the conditions; None is all that were trained with dropout.

        Raises:
            ValueError: a condition that the network never had to do without, or none at all.
        """
        droppable = {name for name in self.conditions if self.conditions[name].dropout}
        chosen = droppable if names is None else set(names)
        if not chosen or not chosen <= droppable:
            wrong = ", ".join(sorted(chosen - droppable)) or "none"
            raise ValueError(
                f"Expected conditions trained with dropout, got {wrong}. "
                "Fix: train with dropout=0.1 in their conditioner (label_dropout for labels)."
            )
        parts = {
            name: self.conditions[name].none(part) if name in chosen else part
            for name, part in self.parts.items()
        }
        return BoundConditions(self.conditions, self.values, parts)


@final
class Conditions(nn.ModuleDict):
    """The conditioners of a model by the names of the values that users give.

    Args:
        conditioners: By name.
        sample_shape: Shape of one encoded sample, without the batch.
        reserved: Names that conditions cannot have, since they already mean something.

    Raises:
        ValueError: a name that cannot be had, or two conditions that give the same keyword.
    """

    def __init__(
        self,
        conditioners: Mapping[str, Conditioner] | None = None,
        sample_shape: tuple[int, ...] = (),
        reserved: Iterable[str] = (),
    ) -> None:
        super().__init__()
        taken = set(reserved) | set(dir(self))
        owners: dict[str, str] = {}
        for name, conditioner in (conditioners or {}).items():
            if name in taken or not name.isidentifier():
                raise ValueError(
                    f"Expected a free name for a condition, got {name!r}, which already "
                    "has a meaning or is not a Python name. Fix: call it something else."
                )
            for keyword in conditioner.keywords:
                if keyword in owners:
                    raise ValueError(
                        f"Expected each keyword of the network from one condition, got {keyword!r} "
                        f"from {owners[keyword]!r} and {name!r}. Fix: set keyword= of one of them."
                    )
                owners[keyword] = name
            conditioner.build(sample_shape)
            self[name] = conditioner

    def __getitem__(self, name: str) -> Conditioner:
        return super().__getitem__(name)  # type: ignore[return-value]

    def bind(
        self,
        values: Mapping[str, Any],
        batch: int | None = None,
        *,
        drop: bool = False,
        generator: torch.Generator | None = None,
    ) -> BoundConditions:
        """Evaluates every condition, once.

        Args:
            values: The user's values by name.
            batch: Number of samples, for which a single value is repeated except in training; None
                is as many as there are values.
            drop: Whether to drop conditions, each at its own rate, as in training.
            generator: For that.

        Raises:
            ValueError: an unknown or a missing condition, a value that does not fit its
                conditioner, or values for another number of samples.
        """
        given = {name: value for name, value in values.items() if value is not None}
        if unknown := given.keys() - self.keys():
            raise ValueError(
                f"Expected conditions {_list(self)}, got {_list(unknown)}. "
                "Fix: leave it out, or give the model a conditioner for it (conditions=)."
            )
        if missing := self.keys() - given.keys():
            raise ValueError(
                f"Expected a value for {_list(missing)}, got none. "
                f"Fix: pass {min(missing)}=..., one for each sample."
            )
        parts: dict[str, Keywords] = {}
        for name in self:
            conditioner = self[name]
            value = given[name]
            if (
                batch is not None and not drop
            ):  # a single value for a whole training batch is a mistake
                value = conditioner.repeat(value, batch)
            parts[name] = conditioner(value, drop=drop, generator=generator)
            for encoded in parts[name].values():
                batch = len(encoded) if batch is None else batch
                if len(encoded) != batch:
                    raise ValueError(
                        f"Expected {batch} of {name}, one for each sample, got {len(encoded)}. "
                        "Fix: give as many as there are samples."
                    )
        return BoundConditions(self, given, parts)

    def flip(self, values: Mapping[str, Any], where: Tensor) -> dict[str, Any]:
        """The values that belong to data mirrored left to right where [batch] says so.

        Values that are not of a condition are returned as they are.
        """
        return {n: self[n].flip(v, where) if n in self else v for n, v in values.items()}

    @property
    def needs_fit(self) -> bool:
        """Whether statistics of a condition are still unknown."""
        return any(self[name].needs_fit for name in self)


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


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _column(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *(1,) * (like.ndim - 1))
