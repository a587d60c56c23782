"""What `--help` and `--print_config` print, from the signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..parts import BadPart, Option, Plan, fold, names_of, nearest, options, write_yaml
from ..parts.hints import said
from ..parts.signatures import REQUIRED, descriptions, members
from ..parts.table import PACKAGE, is_named, parts_of
from ..storage.config import to_config

WIDTH = 100


def page(command: Callable[..., Any], prog: str, given: Mapping[str, Mapping[str, str]]) -> str:
    """The options of a command, and those of the classes that have no names to choose from."""
    docs, hints = descriptions(command), typing.get_type_hints(command)
    head = inspect.cleandoc(command.__doc__ or "").partition("Args:\n")[0].strip()
    rows = []
    for parameter in inspect.signature(command).parameters.values():
        name = parameter.name
        flat = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
        option = Option(name, hints[name], parameter.default, docs.get(name, ""))
        rows.append(_row(name.upper() if flat else f"--{name}", _told(option)))
        rows += _inner(option, f"--{name}", given.get(name, {}))
    rows += [
        _row("--config FILE", "Read options from a YAML file; flags override them."),
        _row("--print_config", "Print all options as a config, to start a file from."),
        _row("--help NAME", "Options of one part, such as UNet or DDIM."),
    ]
    return f"{head}\n\nOptions of {prog}:\n" + "\n".join(rows)


def _inner(option: Option, flag: str, given: Mapping[str, str]) -> Iterator[str]:
    """Rows for the options of a class of this package that has no name in the table."""
    for kind in members(option.hint):
        if inspect.isclass(kind) and kind.__module__.startswith(PACKAGE) and not is_named(kind):
            for inner in options(kind).values():
                if inner.name not in given:
                    yield _row(f"{flag}.{inner.name}", _told(inner))
                    yield from _inner(inner, f"{flag}.{inner.name}", {})


def part_page(name: str) -> str:
    """The options of the parts of a name; raises BadPart if there is none."""
    known = parts_of(object)
    word = fold(name.split(".")[-1])
    found = dict.fromkeys(cls for key, cls in known if word in (fold(key), fold(cls.__name__)))
    if not found:
        raise BadPart(f"--help: there is no part {name!r:.60}.{nearest(name, [cls.__name__ for _, cls in known])}")
    pages = []
    for cls in found:
        head = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[0].strip()
        rows = [_row(f".{option.name}", _told(option)) for option in options(cls).values()]
        pages.append("\n".join([f"{cls.__name__}: {head}", "", *rows]))
    return "\n\n".join(pages)


def _told(option: Option) -> str:
    """The description of an option, what it takes and its default."""
    kinds = [kind for kind in members(option.hint) if inspect.isclass(kind) and is_named(kind)]
    taken = f"one of {', '.join(names_of(kinds[0]))}" if kinds else said(option.hint)
    default = "required" if option.default is REQUIRED else f"default: {_short(option.default)}"
    return f"{option.doc} ({taken}; {default})".strip()


def _short(default: Any) -> str:
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _row(flag: str, text: str, column: int = 30) -> str:
    body = textwrap.wrap(text, WIDTH - column) or [""]
    first = f"  {flag:<{column - 2}}" if len(flag) < column - 2 else f"  {flag}\n{'':{column}}"
    return first + f"\n{'':{column}}".join(body)


def config_text(arguments: Mapping[str, Any], given: Mapping[str, Mapping[str, str]]) -> str:
    """Arguments of a command as a commented config, the defaults of their parts included."""
    return "\n".join(line for name, value in arguments.items() for line in _entry(name, value, "", given.get(name, {})))


def _entry(name: str, value: Any, pad: str, given: Mapping[str, str]) -> Iterator[str]:
    if dataclasses.is_dataclass(value) and not isinstance(value, Plan) and not is_named(type(value)):
        value = Plan(type(value), dict(vars(value)))  # a group of options
    if isinstance(value, dict) and any(isinstance(item, Plan) for item in value.values()):  # parts by name
        yield f"{pad}{name}:"
        for key, item in value.items():
            yield from _entry(key, item, f"{pad}  ", {})
        return
    if not isinstance(value, Plan):
        data = write_yaml(to_config(value), flow=True)
        yield f"{pad}{name}: {data.removesuffix('...' + chr(10)).rstrip()}"
        return
    yield f"{pad}{name}:"
    ours = value.cls.__module__.startswith(PACKAGE)
    named = not ours or any(cls is value.cls for _, cls in parts_of(object))
    if named:
        path = value.cls.__name__ if ours else f"{value.cls.__module__}.{value.cls.__qualname__}"
        yield f"{pad}  class_path: {path}"
        yield f"{pad}  init_args:"
        pad += "  "
    for option in options(value.cls).values():
        if option.name in given or (option.name not in value.options and option.default is REQUIRED):
            continue
        if option.doc:
            yield from textwrap.wrap(
                option.doc, WIDTH - len(pad) - 4, initial_indent=f"{pad}  # ", subsequent_indent=f"{pad}  # "
            )
        yield from _entry(option.name, value.options.get(option.name, option.default), f"{pad}  ", {})
