"""Reads the options of a class from its `__init__` and its docstring."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Union

from .docstrings import arguments

REQUIRED = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Option:
    """An option: its name, type, default (`REQUIRED` for none) and description."""

    name: str
    hint: Any
    default: Any
    doc: str


def options(cls: type) -> Mapping[str, Option]:
    """Returns the options of a class by name: the arguments of its `__init__`.

    If it takes `**` arguments, the options of its parent's `__init__` follow.
    """
    return _options(cls)


@functools.cache
def _options(cls: Any) -> Mapping[str, Option]:
    found: dict[str, Option] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        init = inspect.unwrap(vars(base)["__init__"])
        fields = (
            {field.name: field for field in dataclasses.fields(cls)}
            if dataclasses.is_dataclass(cls)
            else {}
        )
        # The annotation of an inherited field is resolved in the module of its own class, which
        # get_type_hints does for a class but not for a function.
        hints = typing.get_type_hints(cls if fields else init)
        parameters = list(inspect.signature(init).parameters.values())[1:]
        docs = descriptions(cls) | descriptions(base)
        for parameter in parameters:
            name, default = parameter.name, parameter.default
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in found:
                continue
            if name in fields and fields[name].default_factory is not dataclasses.MISSING:
                default = fields[name].default_factory()  # type: ignore[operator]
            found[name] = Option(name, hints.get(name, Any), default, docs.get(name, ""))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return types.MappingProxyType(found)


def descriptions(described: Any) -> dict[str, str]:
    """Returns the descriptions of arguments in the docstring of a function or class.

    The docstring of a class's `__init__` counts too.
    """
    return arguments(described.__doc__) | arguments(getattr(described, "__init__", None).__doc__)


def members(hint: Any) -> tuple[Any, ...]:
    """Returns the types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
