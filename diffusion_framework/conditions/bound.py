"""`Conditions`: all conditioners of a model, by name; and their values for one batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from .base import Conditioner, Keywords


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


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
