"""Texts of `--print_config`: the options of a command as a commented config."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ..parts import Plan, options, write_yaml
from ..parts.search import is_named, parts_of
from ..parts.signatures import REQUIRED
from ..parts.table import PACKAGE
from ..storage.config import to_config
from .help import WIDTH, in_yaml


def config_text(arguments: Mapping[str, Any], given: Mapping[str, Mapping[str, str]]) -> str:
    """Returns the arguments of a command as a commented config, with all defaults."""
    return "\n".join(
        line
        for name, value in arguments.items()
        for line in _entry(name, value, "", given.get(name, {}))
    )


def _entry(name: str, value: Any, pad: str, given: Mapping[str, str]) -> Iterator[str]:
    """Yields the lines of an option and its value, indented by `pad`."""
    if (
        dataclasses.is_dataclass(value)
        and not isinstance(value, Plan)
        and not is_named(type(value))
    ):
        value = Plan(type(value), dict(vars(value)))  # a group of options
    if isinstance(value, Plan):
        yield f"{pad}{name}:"
        yield from _part(value, f"{pad}  ", given)
    elif isinstance(value, dict) and any(isinstance(item, Plan) for item in value.values()):
        yield f"{pad}{name}:"
        for key, item in value.items():
            yield from _entry(key, item, f"{pad}  ", {})
    else:
        data = write_yaml(to_config(value), flow=True)
        yield f"{pad}{name}: {data.removesuffix('...' + chr(10)).rstrip()}"


def _part(part: Plan, pad: str, given: Mapping[str, str]) -> Iterator[str]:
    """Yields the lines of a part: its class if files can name it, and its commented options."""
    ours = part.cls.__module__.startswith(PACKAGE)
    if not ours or any(cls is part.cls for _, cls in parts_of(object)):
        path = part.cls.__name__ if ours else f"{part.cls.__module__}.{part.cls.__qualname__}"
        yield f"{pad}class_path: {path}"
        yield f"{pad}init_args:"
        pad += "  "
    for option in options(part.cls).values():
        if option.name in given or (option.name not in part.options and option.default is REQUIRED):
            continue
        comment = f"{pad}# "
        yield from textwrap.wrap(
            in_yaml(option.doc),
            WIDTH - len(pad) - 2,
            initial_indent=comment,
            subsequent_indent=comment,
        )
        yield from _entry(option.name, part.options.get(option.name, option.default), pad, {})
