"""Texts of `--help` and `--print_config`, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..parts import Option, Plan, fold, names_of, options, unknown_name, write_yaml
from ..parts.hints import in_words
from ..parts.search import is_named, parts_of
from ..parts.signatures import REQUIRED, descriptions, members
from ..parts.table import PACKAGE
from ..storage.config import to_config

WIDTH = 100


def page(command: Callable[..., Any], prog: str, given: Mapping[str, Mapping[str, str]]) -> str:
    """Returns the help of a command: its options, and the options of its groups."""
    docs, hints = descriptions(command), typing.get_type_hints(command)
    head = inspect.cleandoc(command.__doc__ or "").partition("Args:\n")[0].strip()
    rows = []
    for parameter in inspect.signature(command).parameters.values():
        name = parameter.name
        flat = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
        option = Option(name, hints[name], parameter.default, docs.get(name, ""))
        rows.append(_row(name.upper() if flat else f"--{name}", _describe(option)))
        rows += _group_rows(option, f"--{name}", given.get(name, {}))
    rows += [
        _row("--config FILE", "Read options from a YAML file; flags override them."),
        _row("--print_config", "Print all options as a config, to start a file from."),
        _row("--help NAME", "Options of one part, such as UNet or DDIM."),
    ]
    return f"{head}\n\nOptions of {prog}:\n" + "\n".join(rows)


def _group_rows(option: Option, flag: str, given: Mapping[str, str]) -> Iterator[str]:
    """Yields rows for the options of a class of this package without a name in the table."""
    for kind in members(option.hint):
        if inspect.isclass(kind) and kind.__module__.startswith(PACKAGE) and not is_named(kind):
            for inner in options(kind).values():
                if inner.name not in given:
                    yield _row(f"{flag}.{inner.name}", _describe(inner))
                    yield from _group_rows(inner, f"{flag}.{inner.name}", {})


def part_page(name: str) -> str:
    """Returns the help of the parts that have a name.

    Raises:
        BadPart: If the name is unknown.
    """
    known = parts_of(object)
    word = fold(name.split(".")[-1])
    found = dict.fromkeys(cls for key, cls in known if word in (fold(key), fold(cls.__name__)))
    if not found:
        raise unknown_name("--help", "the name of a part", name, [cls.__name__ for _, cls in known])
    pages = []
    for cls in found:
        head = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[0].strip()
        rows = [_row(f".{option.name}", _describe(option)) for option in options(cls).values()]
        pages.append("\n".join([f"{cls.__name__}: {head}", "", *rows]))
    return "\n\n".join(pages)


def _describe(option: Option) -> str:
    """Returns the description of an option, its values and its default."""
    kinds = [kind for kind in members(option.hint) if inspect.isclass(kind) and is_named(kind)]
    taken = f"one of {', '.join(names_of(kinds[0]))}" if kinds else in_words(option.hint)
    default = "required" if option.default is REQUIRED else f"default: {_short(option.default)}"
    doc = in_yaml(option.doc)
    if dataclasses.is_dataclass(option.default) and not is_named(type(option.default)):
        return f"{doc} (a group of options)"
    return f"{doc} ({taken}; {default})".strip()


def in_yaml(doc: str) -> str:
    """Returns a description with the words of YAML for None, True and False."""
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda word: words[word[0]], doc)


def _short(default: Any) -> str:
    return (
        "null"
        if default is None
        else str(default).lower()
        if isinstance(default, bool)
        else in_yaml(str(default))
    )


def _row(flag: str, text: str, column: int = 30) -> str:
    body = textwrap.wrap(text, WIDTH - column) or [""]
    first = f"  {flag:<{column - 2}}" if len(flag) < column - 2 else f"  {flag}\n{'':{column}}"
    return first + f"\n{'':{column}}".join(body)


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
