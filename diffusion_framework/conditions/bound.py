"""All conditioners of a model by name, and their values bound to one batch."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ..parts import nearest
from .base import Conditioner, Keywords
from .warp import Warp

_OPTIONS = {  # options of a network for the conditions that a model has by default
    "labels": "num_classes",
    "image": "image_channels",
    "vector": "vector_dim",
    "text": "token_dim",
    "augmentation": "augmentation",
}


DATA_FLAGS = {  # with which the images of a folder have a condition
    "labels": "--data.labels true",
    "image": "--data.pairs FOLDER",
    "vector": "--data.vectors COLUMNS",
    "text": "--data.captions true",
}


@final
@dataclass(frozen=True, eq=False)
class BoundConditions:
    """Encoded conditions of one batch, computed once and used at every step of a trajectory.

    Attributes:
        conditions: Conditioners of the model.
        values: User's values by the name of their condition.
        parts: Keyword arguments of the network by the name of their condition.
    """

    conditions: Conditions
    values: Mapping[str, Any]
    parts: Mapping[str, Keywords]

    @property
    def keywords(self) -> Keywords:
        """Keyword arguments of the network, from all conditions together."""
        return {keyword: v for part in self.parts.values() for keyword, v in part.items()}

    @property
    def batch(self) -> int | None:
        """Number of samples; None without conditions."""
        return next((len(value) for value in self.keywords.values()), None)

    def without(
        self, names: Collection[str] | None = None, negative: Mapping[str, Any] | None = None
    ) -> BoundConditions:
        """Returns a copy in which some conditions are replaced by "none", or by other values.

        Args:
            names: Names of these conditions; None for all that were trained with dropout.
            negative: Values by the name of their condition that replace its value instead of
                "none". They need no dropout. A single value is repeated for the batch.

        Raises:
            ValueError: an unknown condition, one that was trained without dropout, no condition at
                all, one whose value is "none" already, or a value that does not fit.
        """
        negative = {name: value for name, value in (negative or {}).items() if value is not None}
        droppable = {name for name in self.conditions if self.conditions[name].dropout}
        chosen = {*droppable, *negative} if names is None else set(names)
        self._check_names(chosen, negative)
        droppable |= negative.keys()
        if not chosen or not chosen <= droppable:
            wrong = ", ".join(sorted(chosen - droppable)) or "none"
            raise ValueError(
                f"Expected conditions trained with dropout, got {wrong}. "
                "Fix: train with dropout=0.1 in the conditioner, or without conditioners of your "
                "own with condition_dropout=0.1 (--diffusion.condition_dropout 0.1)."
            )
        if not negative and not chosen & self.values.keys():
            raise ValueError(
                f"Expected a value for {_list(chosen)} to guide towards, got none. "
                f"Fix: pass {min(chosen)}=..., or leave guidance out."
            )
        parts = dict(self.parts)
        for name in chosen:
            conditioner = self.conditions[name]
            if name in negative:
                parts[name] = conditioner(conditioner.repeat(negative[name], self.batch or 1))
                check_count(name, parts[name], self.batch)
            else:
                parts[name] = conditioner.none(self.batch or 1)
        return BoundConditions(self.conditions, self.values, parts)

    def _check_names(self, chosen: Collection[str], negative: Collection[str]) -> None:
        """Raises ValueError for unknown conditions, and negative values of others than `chosen`."""
        if unknown := sorted({*chosen, *negative} - self.conditions.keys()):
            close = nearest(unknown[0], [*self.conditions])
            fix = f"write {close!r}" if close else "leave it out"
            raise ValueError(
                f"Expected guidance by the conditions {_list(self.conditions)}, "
                f"got {unknown[0]!r:.60}. Fix: {fix}."
            )
        if others := sorted({*negative} - {*chosen}):
            raise ValueError(
                f"Expected negative values of the conditions that guidance leaves out, "
                f"{_list(chosen)}, got one of {others[0]!r}. Fix: name it among them as well."
            )


@final
class Conditions(nn.ModuleDict):
    """Conditioners of a model by name; users pass a value for each name.

    Args:
        conditioners: Conditioners by name; None for no conditions.
        sample_shape: Shape of one encoded sample, without the batch dimension.
        reserved: Names that conditions cannot have, because they have another meaning.

    Raises:
        ValueError: a reserved name, or two conditioners that return the same keyword argument.
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
                    f"Expected an unreserved Python name for a condition, got {name!r}. "
                    "Fix: rename the condition."
                )
            for keyword in conditioner.keywords:
                if keyword in owners:
                    raise ValueError(
                        "Expected each keyword argument of the network from one condition, "
                        f"got {keyword!r} from {owners[keyword]!r} and {name!r}. "
                        "Fix: set keyword= in one of them."
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
        all_needed: bool = True,
        warp: Warp | None = None,
    ) -> BoundConditions:
        """Encodes the value of every condition.

        Args:
            values: User's values by the name of their condition; None counts as missing.
            batch: Number of samples; None takes it from the values. A value of a single sample is
                repeated `batch` times, except with `drop`.
            all_needed: Whether every condition needs a value. Otherwise, a missing one that was
                trained with dropout is "none"; `batch` must then be given.
            drop: Whether to drop conditions, each at its own rate, as in training.
            generator: Source of randomness for dropout; None for PyTorch's default generator.
            warp: Transformations of the images of the batch; None for none.

        Raises:
            ValueError: an unknown or a missing condition, a value that its conditioner refuses, or
                values for another number of samples.
        """
        given = {name: value for name, value in values.items() if value is not None}
        self._check_names(given)
        dropped = {n for n in self if n not in given and not all_needed and self[n].dropout}
        dropped |= {n for n in self if n not in given and self[n].augments}
        if missing := self.keys() - given.keys() - dropped:
            first = min(missing)
            flag = f"; of images in a folder, {DATA_FLAGS[first]}" if first in DATA_FLAGS else ""
            raise ValueError(
                f"Expected a value for {_list(missing)}, got none. "
                f"Fix: pass {first}=..., one for each sample{flag}."
            )
        parts: dict[str, Keywords] = {}
        for name in self:
            conditioner = self[name]
            if name in dropped:
                if batch is not None or conditioner.dropout:  # else the network takes a default
                    none = conditioner.none(batch or 1)
                    parts[name] = none if warp is None else conditioner.warp(none, warp)
                continue
            value = given[name]
            if batch is not None and not drop:  # in training, a single value is a mistake
                value = conditioner.repeat(value, batch)
            parts[name] = conditioner(value, drop=drop, generator=generator, warp=warp)
            batch = check_count(name, parts[name], batch)
        return BoundConditions(self, given, parts)

    def _check_names(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError for a value of an unknown condition."""
        if unknown := given.keys() - self.keys():
            first = min(unknown)
            remedy = "leave it out, or build the model with a conditioner for it (conditions=)"
            if close := nearest(first, [*self]):
                remedy = f"write {close}="
            elif first in _OPTIONS:
                option = _OPTIONS[first]
                remedy = f"leave it out, or set {option} (--diffusion.model.{option})"
            known = f"conditions {_list(self)}" if self else "no conditions"
            raise ValueError(f"Expected {known}, got {_list(unknown)}. Fix: {remedy}.")

    def check(self, values: Mapping[str, Any], batch: int) -> None:
        """Raises ValueError for values that `bind` refuses, even before statistics are known.

        Args:
            values: User's values by the name of their condition.
            batch: Number of samples.
        """
        ready = self
        if self.needs_fit:
            ready = copy.deepcopy(self)  # fitted to these values only
            for name in ready.keys() & values.keys():
                if ready[name].needs_fit and values[name] is not None:
                    ready[name].observe(values[name])
                    ready[name].finish()
        ready.bind(values, batch)

    def flip(self, values: Mapping[str, Any], where: Tensor) -> dict[str, Any]:
        """Returns the values that match data of which some samples are flipped horizontally.

        Values under other names are returned unchanged.

        Args:
            values: User's values by name.
            where: Boolean mask [batch] of the flipped samples.
        """
        return {n: self[n].flip(v, where) if n in self else v for n, v in values.items()}

    def shown_values(self, values: Mapping[str, Any]) -> dict[str, Tensor | list[str]]:
        """Returns the values that can be shown, as images or texts; see `Conditioner.pictures`."""
        shown = {n: self[n].pictures(values[n]) for n in self if values.get(n) is not None}
        return {name: view for name, view in shown.items() if view is not None}

    @property
    def given(self) -> list[str]:
        """Names of the conditions whose values users give; training draws the others."""
        return [name for name in self if not self[name].augments]

    @property
    def flips(self) -> bool:
        """Whether every condition can follow images that are flipped."""
        return all(self[name].flips for name in self)

    @property
    def needs_fit(self) -> bool:
        """Whether statistics of a condition are still unknown."""
        return any(self[name].needs_fit for name in self)


def check_count(name: str, encoded: Keywords, batch: int | None) -> int | None:
    """Returns the number of samples, that of the encoded value of a condition if it is unknown.

    Raises:
        ValueError: a value for another number of samples.
    """
    for value in encoded.values():
        batch = len(value) if batch is None else batch
        if len(value) != batch:
            raise ValueError(
                f"Expected a value of {name} for each of {batch} samples, "
                f"got {len(value)}. Fix: pass one for each sample."
            )
    return batch


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
