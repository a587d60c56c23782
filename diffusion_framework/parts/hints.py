"""What annotations mean: their words in errors, and the plain values that they take."""

from __future__ import annotations

import collections.abc as abc
import math
import os
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from .signatures import members
from .table import BadPart, nearest, noun

MAX_DEPTH = 12
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    NoneType: "null",
}
SEQUENCES = (tuple, list, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection)


def whole_number(value: Any) -> int | None:
    """A whole number of at most 64 bits, or None; 1e4 is one, true is not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        else None
    )


def number(value: Any) -> float | None:
    """A number as a float, or None; infinity is one, nan and true are not."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, int) and abs(value) > 2**1000)
    ):
        return None
    return None if math.isnan(value) else float(value)


def is_exact(value: Any, hint: Any) -> bool:
    return type(value) is (NoneType if hint is None else hint)


def is_kind(hint: Any) -> bool:
    """Whether an annotation is a class that parts may be derived from."""
    plain = ("builtins", "pathlib", "os", "typing", "collections", "types")
    return isinstance(hint, type) and hint.__module__.split(".")[0] not in plain


def kinds(choices: Collection[Any]) -> list[type]:
    return [choice for choice in choices if is_kind(choice)]


def said(hint: Any) -> str:
    """An annotation in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if len(members(hint)) > 1:
        return " or ".join(dict.fromkeys(said(member) for member in members(hint)))
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)} values, each {said(args[0])}"
    if origin in SEQUENCES:
        return f"a list, each {said(args[0])}"
    if origin in (dict, abc.Mapping):
        return f"a mapping, each value {said(args[1])}"
    if hint is os.PathLike or origin is os.PathLike or hint is Path:
        return "a path"
    if is_kind(hint):
        return f"a {noun(hint)}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def nearest_choice(value: Any, choices: Collection[Any]) -> str:
    words = [
        arg
        for choice in choices
        if typing.get_origin(choice) is Literal
        for arg in typing.get_args(choice)
    ]
    words = [word for word in words if isinstance(word, str)]
    close = nearest(value, words) if isinstance(value, str) else ""
    return close if "Did you mean" in close else ""


def plain_data(value: Any, where: str, depth: int = 0) -> Any:
    """Data and nothing else."""
    if value is None or isinstance(value, bool | int | float | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        return [plain_data(item, where, depth + 1) for item in value]
    if isinstance(value, Mapping) and depth < MAX_DEPTH and "class_path" not in value:
        return {str(key): plain_data(item, where, depth + 1) for key, item in value.items()}
    raise BadPart(f"{where}: expected plain data, got {value!r:.60}.")
