"""Converts plain values to what annotations ask for."""

from __future__ import annotations

import collections.abc as abc
import os
import re
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from .errors import BadPart, expected
from .hints import (
    MAX_DEPTH,
    SEQUENCES,
    is_exact,
    is_kind,
    kinds,
    misfit,
    number,
    plain_data,
    whole_number,
)
from .search import Typed, find, is_named, name_in_table
from .signatures import members
from .strict_yaml import read_yaml


@dataclass(frozen=True)
class Context:
    """The place of a value, and the rules for it.

    Attributes:
        plan: Makes the plan of a part from its description, its kind and its context.
        trust: Top-level packages, besides this one, whose classes a file may name.
        where: Place of the value, for errors.
        default: Object or name whose class is meant where the value names none.
        given: Names of options that are supplied when the part is built, with their origins.
        depth: Number of parts and lists around the value.
    """

    plan: Callable[[Any, type, Context], Any]
    trust: Collection[str] = ()
    where: str = ""
    default: Any = None
    given: Mapping[str, str] | None = None
    depth: int = 0

    def inside(self, where: str, default: Any = None) -> Context:
        """Returns the context of a value inside this one."""
        return replace(self, where=where, default=default, given=None, depth=self.depth + 1)


@dataclass(frozen=True)
class Kept:
    """An object that stands in a description in place of plain data, and needs no check."""

    value: Any


def converted(value: Any, hint: Any, at: Context) -> Any:
    """Returns a value as its annotation asks for it; parts become plans.

    Raises:
        BadPart: If the value does not fit.
    """
    if isinstance(value, Kept):
        return value.value
    if isinstance(value, Typed):
        return _from_typed(value, hint, at)
    choices = members(hint)
    if Any in choices:
        return plain_data(value, at.where)
    if isinstance(value, str) and str in choices and (kind := _named_kind(choices)):
        return _from_name(value, kind, at)
    error: BadPart | None = None
    for choice in sorted(choices, key=lambda choice: not is_exact(value, choice)):
        try:
            return _as_member(value, choice, at)
        except BadPart as bad:
            if error is None or is_kind(choice) or typing.get_origin(choice) in SEQUENCES:
                error = bad
    assert error is not None
    part = isinstance(value, Mapping | str) and bool(kinds(choices))
    if part or len(choices) == 1 or isinstance(value, list | tuple):
        raise error
    raise misfit(at.where, value, hint)


def _as_member(value: Any, hint: Any, at: Context) -> Any:
    """Returns the value as one member of a union asks for it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (NoneType, None, bool, str) and is_exact(value, hint):
        return value
    if hint is int and (count := whole_number(value)) is not None:
        return count
    if hint is float and (real := number(value)) is not None:
        return real
    if origin is Literal and any(type(value) is type(arg) and value == arg for arg in args):
        return value
    if (
        (hint in (Path, os.PathLike) or origin is os.PathLike)
        and isinstance(value, str)
        and "\0" not in value
    ):
        return Path(value) if hint is Path else value
    if origin in SEQUENCES and isinstance(value, list | tuple):
        return _sequence(value, origin, args, at)
    if (origin in (dict, abc.Mapping) or hint is dict) and isinstance(value, Mapping):
        item_hint = args[1] if args else Any
        return {
            str(key): converted(item, item_hint, at.inside(f"{at.where}.{key:.60}"))
            for key, item in value.items()
        }
    if is_kind(hint) or is_kind(origin):
        return at.plan(value, hint if is_kind(hint) else origin, at)
    raise misfit(at.where, value, hint)


def _sequence(value: Any, origin: Any, args: tuple[Any, ...], at: Context) -> Any:
    fixed = origin is tuple and Ellipsis not in args
    if fixed and len(args) != len(value):
        fix = f"give {len(args)} values"
        raise BadPart(expected(at.where, f"{len(args)} values", len(value), fix))
    if at.depth + 1 > MAX_DEPTH:
        wanted = f"lists nested at most {MAX_DEPTH} deep"
        raise BadPart(expected(f"{at.where:.60}...", wanted, "more", "nest fewer lists"))
    items = [
        converted(item, args[i] if fixed else args[0], at.inside(f"{at.where}[{i}]"))
        for i, item in enumerate(value)
    ]
    return items if origin is list else tuple(items)


def _named_kind(choices: Collection[Any]) -> type | None:
    """Returns the kind whose names a word may be, or None if the word may also be a path."""
    if _takes_paths(choices):
        return None
    return next((kind for kind in kinds(choices) if is_named(kind)), None)


def _takes_paths(choices: Collection[Any]) -> bool:
    return any(os.PathLike in (choice, typing.get_origin(choice)) for choice in choices)


def _from_name(value: str, kind: type, at: Context) -> Any:
    """Returns the name in the table, which the constructor resolves itself, or else a plan.

    The constructor can supply arguments that the file does not hold.
    """
    cls = find(value, kind, at.trust, at.where)
    return name_in_table(cls) or at.plan(value, kind, at)


def _from_typed(word: Typed, hint: Any, at: Context) -> Any:
    """Converts a typed word: read as YAML, as a list with commas, or taken literally."""
    raw, choices = str(word), members(hint)
    if choices == (str,):
        return raw
    named = [kind for kind in kinds(choices) if is_named(kind) and not _takes_paths(choices)]
    constants = {"null": NoneType, "true": bool, "false": bool}
    if named and re.fullmatch(r"[^\W\d][\w.]*", raw) and constants.get(raw) not in choices:
        return _from_name(word, named[0], at) if str in choices else at.plan(word, named[0], at)
    for choice in choices:
        items = typing.get_args(choice) if typing.get_origin(choice) in SEQUENCES else ()
        if items and is_kind(items[0]) and re.fullmatch(r"[^\W\d][\w.]*(,[^\W\d][\w.]*)*", raw):
            return tuple(at.plan(Typed(name), items[0], at) for name in raw.split(","))
    readings: list[Any] = []
    for text in (raw, f"[{raw}]"):
        try:
            reading = read_yaml(text, at.where)
        except BadPart:
            continue
        quoted = raw.startswith(("'", '"'))  # quotes make a word of null or 1
        readings.append(raw if isinstance(reading, str) and not quoted else reading)
    errors = []
    for reading in (*readings, raw):
        try:
            return converted(reading, hint, at)
        except BadPart as error:
            errors.append(error)
    raise next((error for error in errors if "Fix: write" in str(error)), errors[0])
