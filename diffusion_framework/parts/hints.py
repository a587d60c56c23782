"""The meaning of annotations: their words in errors, and the plain values that they take."""

from __future__ import annotations

import collections.abc as abc
import math
import os
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from .errors import BadPart, expected
from .search import choose_one, is_named, names_of, nearest, noun
from .signatures import members

MAX_DEPTH = 12
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    NoneType: "null",
    Any: "anything",
}
SEQUENCES = (tuple, list, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection)


def whole_number(value: Any) -> int | None:
    """Returns a whole number of at most 64 bits, or None; 1e4 is one, true is not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        else None
    )


def number(value: Any) -> float | None:
    """Returns a number as a float, or None; infinity is one, nan and true are not."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, int) and abs(value) > 2**1000)
    ):
        return None
    return None if math.isnan(value) else float(value)


def is_exact(value: Any, hint: Any) -> bool:
    """Returns whether the value's type is the annotation itself."""
    return type(value) is (NoneType if hint is None else hint)


def is_kind(hint: Any) -> bool:
    """Returns whether an annotation is a class that parts may be derived from."""
    plain = ("builtins", "pathlib", "os", "typing", "collections", "types")
    return isinstance(hint, type) and hint.__module__.split(".")[0] not in plain


def kinds(choices: Collection[Any]) -> list[type]:
    """Returns the annotations that are classes of parts."""
    return [choice for choice in choices if is_kind(choice)]


def in_words(hint: Any) -> str:
    """Returns an annotation in words, such as 'a whole number or null'."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if len(members(hint)) > 1:
        return " or ".join(dict.fromkeys(in_words(member) for member in members(hint)))
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)} values, each {in_words(args[0])}"
    if origin in SEQUENCES:
        return f"a list of values, each {in_words(args[0])}"
    if origin in (dict, abc.Mapping):
        return f"a mapping of names to values, each {in_words(args[1])}"
    if origin is abc.Callable:
        return "a function"
    if hint is os.PathLike or origin is os.PathLike or hint is Path:
        return "a path"
    if is_kind(hint):
        return noun(hint)
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def misfit(where: str, value: Any, hint: Any) -> BadPart:
    """Returns the error for a value that does not fit an annotation, with a remedy."""
    words = [
        word
        for choice in members(hint)
        if typing.get_origin(choice) is Literal
        for word in typing.get_args(choice)
        if isinstance(word, str)
    ]
    named = [kind for kind in kinds(members(hint)) if is_named(kind)]
    example = _example(hint)
    if isinstance(value, str) and (close := nearest(value, words)):
        fix = f"write {close!r}"
    elif named:
        fix = choose_one(names_of(named[0]))
    else:
        fix = f"give {in_words(hint)}" + (f", such as {example}" if example else "")
    return BadPart(expected(where, in_words(hint), f"{value!r:.60}", fix))


def _example(hint: Any) -> str | None:
    """Returns a value that fits a numeric annotation, or a list of numbers; None for others."""
    for choice in members(hint):
        if choice in (int, float):
            return "10" if choice is int else "0.5"
        origin, args = typing.get_origin(choice), typing.get_args(choice)
        if origin in SEQUENCES and (item := _example(args[0])):
            count = len(args) if origin is tuple and Ellipsis not in args else 2
            numbers = range(1, count + 1) if item == "10" else [item] * count
            return f"[{', '.join(map(str, numbers))}]"
    return None


def plain_data(value: Any, where: str, depth: int = 0) -> Any:
    """Returns the value if it is plain data.

    Raises:
        BadPart: If it holds a part, or is nested too deep.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        return [plain_data(item, where, depth + 1) for item in value]
    if isinstance(value, Mapping) and depth < MAX_DEPTH and "class_path" not in value:
        return {str(key): plain_data(item, where, depth + 1) for key, item in value.items()}
    fix = "give numbers, words, lists and mappings without class_path"
    raise BadPart(expected(where, "plain data", f"{value!r:.60}", fix))
