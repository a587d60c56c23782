"""Objects on one readable line."""

from __future__ import annotations

import dataclasses
import inspect
import os
import reprlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_LONGEST = 60  # characters of one argument that is plain data


def one_line_repr(value: Any, arguments: Mapping[str, Any]) -> str:
    """Returns 'Class(argument=value, ..., 1.2M parameters)' with the arguments that are set.

    Args:
        value: Object.
        arguments: Arguments of its constructor by name; those that equal their defaults are left
            out.
    """
    defaults = _defaults(type(value))
    shown = [
        f"{name}={_short(argument)}"
        for name, argument in arguments.items()
        if name not in defaults or not _equal(argument, defaults[name])
    ]
    wraps = any(isinstance(argument, nn.Module) for argument in arguments.values())
    if isinstance(value, nn.Module) and not wraps:
        count = sum(parameter.numel() for parameter in value.parameters())
        shown += [f"{in_short(count)} parameters"] if count else []
    return f"{type(value).__name__}({', '.join(shown)})"


def in_short(count: float) -> str:
    """Returns a number with three digits and a unit, such as 35.7M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return f"{count:.3g}"


def _defaults(cls: type) -> dict[str, Any]:
    """Returns the defaults of a constructor and of those to which it may pass arguments on."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                found.setdefault(name, parameter.default)
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor | nn.Module) or isinstance(other, Tensor | nn.Module):
        return one is other
    try:
        return bool(one == other)
    except (TypeError, ValueError, RuntimeError):  # such as arrays
        return False


class _Short(reprlib.Repr):
    """Repr with few items of a sequence, which leaves parts of this package whole."""

    def repr_instance(self, value: Any, level: int) -> str:
        """Returns the repr of an object on one line."""
        if isinstance(value, Tensor):
            return f"Tensor{[*value.shape]}"
        if isinstance(value, os.PathLike):
            return repr(os.fspath(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return one_line_repr(value, vars(value))
        text = " ".join(repr(value).split())
        ours = type(value).__module__.split(".")[0] == __name__.split(".")[0]
        if ours or len(text) <= _LONGEST:
            return text
        return f"{type(value).__name__}(...)"


def _short(value: Any) -> str:
    short = _Short()
    short.maxstring = short.maxlong = short.maxother = _LONGEST
    short.maxtuple = short.maxlist = short.maxdict = 4
    short.maxlevel = 4
    return " ".join(short.repr(value).split())
