"""`plan` checks plain data against signatures and builds nothing; `Plan.build` makes the object."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import os
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar

from .hints import (
    MAX_DEPTH,
    SEQUENCES,
    is_exact,
    is_kind,
    kinds,
    nearest_choice,
    number,
    plain_data,
    said,
    whole_number,
)
from .signatures import REQUIRED, members, options
from .strict_yaml import read_yaml
from .table import PACKAGE, BadPart, Typed, find, is_named, name_in_table, names_of, nearest, noun

T = TypeVar("T")


@dataclasses.dataclass
class Plan:
    """A class with checked options. Nothing is built yet.

    Attributes:
        cls: The class.
        options: Values by name; parts among them are plans.
        where: Place of the part, for errors.
    """

    cls: type
    options: dict[str, Any]
    where: str = ""

    def is_ours(self) -> bool:
        """Whether this class and those of all its parts are of this package."""
        return self.cls.__module__.split(".")[0] == PACKAGE and all(
            part.is_ours() for part in _plans(self.options)
        )

    def build(self, **given: Any) -> Any:
        """The object.

        Args:
            given: Further arguments; those that the class does not take are left out.

        Raises:
            ValueError, OSError: as the class raises them.
            BadPart: any other error of the class.
        """
        known = options(self.cls)
        values = {name: _built(value) for name, value in self.options.items()}
        values |= {name: value for name, value in given.items() if name in known}
        try:
            return self.cls(**values)
        except (ValueError, OSError):
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
            raise BadPart(
                f"{self.where or self.cls.__name__} cannot be built ({cause})."
            ) from error


def _plans(value: Any) -> Iterator[Plan]:
    """The plans in options, or in lists and mappings of them."""
    if isinstance(value, Plan):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _plans(item)


def _built(value: Any) -> Any:
    if isinstance(value, Plan):
        return value.build()
    if isinstance(value, list | tuple):
        return type(value)(_built(item) for item in value)
    if isinstance(value, dict):
        return {key: _built(item) for key, item in value.items()}
    return value


def plan(
    node: Any,
    kind: type,
    *,
    trust: Collection[str] = (),
    where: str = "",
    default: Any = None,
    given: Mapping[str, str] | None = None,
    _depth: int = 0,
) -> Plan:
    """Check a description of a part against the signatures of the classes that it names.

    Args:
        node: `{class_path: name, init_args: options}`, a name, or options of the default class.
        kind: The class that the part must be derived from.
        trust: Top-level packages, besides this one, whose classes a file may name.
        where: Place of the node, for errors.
        default: An object or a name whose class is meant where the node names none.
        given: Options that `Plan.build` is going to be given, with what sets them. A file may hold
            them (they are ignored); a typed one is an error.

    Raises:
        BadPart: an unknown name or option, a value of another type, a missing option.
        NotTrusted: a class of another package.
    """
    if _depth > MAX_DEPTH:
        raise BadPart(f"{where:.60}...: parts within parts, more than {MAX_DEPTH} deep.")
    cls, values = _class_and_options(node, kind, trust, where, default)
    known, given = options(cls), given or {}
    checked = {}
    for name, value in values.items():
        here = f"{where}.{name:.60}" if where else f"{name:.60}"
        if name in given:
            if isinstance(value, Typed):
                raise BadPart(f"{here} cannot be set: it comes from {given[name]}")
            continue
        if name not in known:
            free = [option for option in known if option not in given]
            raise BadPart(
                f"{here}: {cls.__name__} has no option {name!r:.60}.{nearest(str(name), free)}"
            )
        option = known[name]
        checked[name] = convert(
            value, option.hint, trust=trust, where=here, default=option.default, _depth=_depth + 1
        )
    for name, option in known.items():
        if option.default is REQUIRED and name not in checked and name not in given:
            here = f"{where}.{name}" if where else name
            raise BadPart(
                f"{here} is missing. Fix: give it ({option.doc.rstrip('.') or 'required'})."
            )
    return Plan(cls, checked, where)


def _class_and_options(
    node: Any, kind: type, trust: Collection[str], where: str, default: Any
) -> tuple[type, Mapping[str, Any]]:
    """The class of a node, and the options that stand there for it."""
    if isinstance(node, str):
        return find(node, kind, trust, where), {}
    if not isinstance(node, Mapping):
        raise BadPart(f"{where}: expected a {noun(kind)}, got {node!r:.60}.")
    if "class_path" in node:
        if extra := sorted(str(key) for key in node if key not in ("class_path", "init_args")):
            raise BadPart(
                f"{where}: expected class_path and init_args, got {extra[0]!r:.60} beside them."
            )
        values = node.get("init_args", {})
        if values is None:
            name = str(node["class_path"]).rpartition(".")[2]
            raise BadPart(
                f"{where}: {name:.60} does not record its arguments. Fix: open it from Python with "
                f"model=, or "
                "derive the class from diffusion_framework.RecordsArguments."
            )
        cls = find(node["class_path"], kind, trust, where)
    else:
        values = node.get("init_args", node) if set(node) == {"init_args"} else node
        cls, kept = _default_class(kind, default, where)
        values = {**kept, **values} if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise BadPart(f"{where}: expected options of {cls.__name__}, got {values!r:.60}.")
    return cls, values


def _default_class(kind: type, default: Any, where: str) -> tuple[type, dict[str, Any]]:
    """The class that is meant where none is named, and options of the default that stay."""
    if isinstance(default, str):
        return find(default, kind, (), where), {}
    if default is not None and default is not REQUIRED:
        kept = {}
        if dataclasses.is_dataclass(default) and isinstance(default, kind):
            kept = {
                f.name: _Kept(getattr(default, f.name))
                for f in dataclasses.fields(default)
                if f.init
            }
        return type(default), kept
    if kind.__module__.split(".")[0] == PACKAGE and not inspect.isabstract(kind):
        return kind, {}
    raise BadPart(f"{where}: name a {noun(kind)} first: {', '.join(names_of(kind))}.")


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A value of a default object, which needs no check."""

    value: Any


def convert(
    value: Any,
    hint: Any,
    *,
    trust: Collection[str] = (),
    where: str = "",
    default: Any = None,
    given: Mapping[str, str] | None = None,
    _depth: int = 0,
) -> Any:
    """A value as its annotation wants it; parts become plans.

    Args:
        value: Plain data, or a `Typed` word.
        hint: The annotation.
        trust: As for `plan`.
        where: As for `plan`.
        default: The default of the option.
        given: As for `plan`.

    Raises:
        BadPart: a value that does not fit.
    """
    if isinstance(value, _Kept):
        return value.value
    context = {"trust": trust, "where": where, "default": default, "given": given, "_depth": _depth}
    if isinstance(value, Typed):
        return _from_typed(value, hint, context)
    choices = members(hint)
    if Any in choices:
        return plain_data(value, where)
    if isinstance(value, str) and str in choices and (kind := _named_kind(choices)):
        return _name(value, kind, context)
    error: BadPart | None = None
    for choice in sorted(choices, key=lambda choice: not is_exact(value, choice)):
        try:
            return _one(value, choice, context)
        except BadPart as bad:
            if error is None or is_kind(choice) or isinstance(value, list | tuple):
                error = bad
    assert error is not None
    part = isinstance(value, Mapping | str) and bool(kinds(choices))
    if part or len(choices) == 1 or isinstance(value, list | tuple):
        raise error
    raise BadPart(
        f"{where}: expected {said(hint)}, got {value!r:.60}.{nearest_choice(value, choices)}"
    )


def _one(value: Any, hint: Any, context: Mapping[str, Any]) -> Any:
    """The value as one member of a union wants it."""
    where, origin, args = context["where"], typing.get_origin(hint), typing.get_args(hint)
    if hint in (NoneType, None, bool, str) and type(value) is (NoneType if hint is None else hint):
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
        return _sequence(value, origin, args, context)
    if (origin in (dict, abc.Mapping) or hint is dict) and isinstance(value, Mapping):
        of, inner = (
            args[1] if args else Any,
            {"trust": context["trust"], "_depth": context["_depth"] + 1},
        )
        return {
            str(key): convert(item, of, where=f"{where}.{key:.60}", **inner)
            for key, item in value.items()
        }
    if is_kind(hint) or is_kind(origin):
        return plan(value, hint if is_kind(hint) else origin, **context)
    raise BadPart(
        f"{where}: expected {said(hint)}, got {value!r:.60}.{nearest_choice(value, (hint,))}"
    )


def _sequence(value: Any, origin: Any, args: tuple[Any, ...], context: Mapping[str, Any]) -> Any:
    where, depth = context["where"], context["_depth"] + 1
    fixed = origin is tuple and Ellipsis not in args
    if fixed and len(args) != len(value):
        raise BadPart(f"{where}: expected {len(args)} values, got {len(value)}.")
    if depth > MAX_DEPTH:
        raise BadPart(f"{where:.60}...: lists within lists, more than {MAX_DEPTH} deep.")
    items = [
        convert(
            item,
            args[i] if fixed else args[0],
            trust=context["trust"],
            where=f"{where}[{i}]",
            _depth=depth,
        )
        for i, item in enumerate(value)
    ]
    return items if origin is list else tuple(items)


def _named_kind(choices: Collection[Any]) -> type | None:
    """The kind whose names a word may be, unless it may as well be a path."""
    if any(typing.get_origin(choice) is os.PathLike or choice is os.PathLike for choice in choices):
        return None
    return next((kind for kind in kinds(choices) if is_named(kind)), None)


def _name(value: str, kind: type, context: Mapping[str, Any]) -> Any:
    """A name that the constructor resolves itself, as it knows more than the file.

    Or the plan of a class.
    """
    cls = find(value, kind, context["trust"], context["where"])
    return name_in_table(cls) or plan(value, kind, **context)


def _from_typed(word: Typed, hint: Any, context: Mapping[str, Any]) -> Any:
    """A typed word as the annotation wants it: read as YAML, as a list with commas, or as it
    stands.
    """
    raw, choices, where = str(word), members(hint), context["where"]
    if choices == (str,):
        return raw
    named = [kind for kind in kinds(choices) if is_named(kind)]
    if (
        named
        and re.fullmatch(r"[^\W\d][\w.]*", raw)
        and not (NoneType in choices and raw == "null")
    ):
        return _name(word, named[0], context) if str in choices else plan(word, named[0], **context)
    readings: list[Any] = []
    for text in (raw, f"[{raw}]"):
        try:
            reading = read_yaml(text, where)
        except BadPart:
            continue
        plain = isinstance(reading, str) and not raw.startswith(
            ("'", '"')
        )  # quotes make a word of null or 1
        readings.append(raw if plain else reading)
    errors = []
    for reading in (*readings, raw):
        try:
            return convert(reading, hint, **context)
        except BadPart as error:
            errors.append(error)
    raise next((error for error in errors if "Did you mean" in str(error)), errors[0])


def resolve(value: str | T, kind: type[T], keyword: str, **known: Any) -> T:
    """The part that `value` is, or that its name stands for.

    Args:
        value: A part, or the name of a frozen dataclass.
        kind: What it must be derived from.
        keyword: Name of the argument, for the error.
        known: Arguments for a part given by name, as far as it has fields of these names.

    Raises:
        BadPart: an unknown name, one whose class needs more, or something of another kind.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise BadPart(
            f"{keyword}: expected a {noun(kind)} or its name, got {got}. Fix: give an object."
        )
    cls: Any = find(value, kind, (), keyword)
    given = {name: thing for name, thing in known.items() if name in options(cls)}
    needed = [
        o.name for o in options(cls).values() if o.default is REQUIRED and o.name not in given
    ]
    if needed:
        raise BadPart(
            f"{keyword}: {cls.__name__} needs {', '.join(needed)}. Fix: give an object in place of "
            "its name."
        )
    return cls(**given)
