"""Finds the options of a command by dotted flags, from source files alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..parts.annotations import group, kinds
from ..parts.outline import Argument, Outline, homes_of, outline
from ..parts.search import fold
from ..parts.table import PACKAGE, TABLE
from .commands import Command


def read_command(command: Command) -> Outline:
    """Returns the function of a command, as its source writes it."""
    found = outline(f"{PACKAGE}.cli.{command.home}")
    assert found is not None
    return found


def arguments_of(command: Command) -> list[Argument]:
    """Returns the arguments of a command that are options of their own."""
    return [a for a in read_command(command).arguments.values() if a.name != "trust"]


def find_argument(
    command: Command, flag: str, chosen: Mapping[str, str] | None = None
) -> Argument | None:
    """Returns the argument of a dotted flag, through the default or chosen classes of its parts.

    Args:
        command: Command.
        flag: Flag such as 'diffusion.model.dim'.
        chosen: Names of classes that the user has chosen, by flag.
    """
    first, *rest = flag.split(".")
    argument = next((a for a in arguments_of(command) if a.name == first), None)
    path = first
    for name in rest:
        read = None if argument is None else class_of(command, argument, path, chosen or {})
        argument = None if read is None else read.arguments.get(name)
        path = f"{path}.{name}"
    return argument


def class_of(
    command: Command, argument: Argument, flag: str, chosen: Mapping[str, str]
) -> Outline | None:
    """Returns the class whose options follow a flag: the chosen, the default or the only one."""
    name = chosen.get(flag) or _default_class(command.defaults, flag.split("."))
    if name is not None:
        homes = [homes_of(kind) for kind in kinds(argument)]
        found = [home for row in homes for key, home in row.items() if fold(key) == fold(name)]
        found += [
            f"{PACKAGE}.{home}"
            for kind in kinds(argument)
            for key, home in TABLE.get(kind, {}).items()
            if fold(key) == fold(name)
        ]
        return outline(found[0]) if found else None
    home = group(argument)
    return outline(home) if home and home.startswith(PACKAGE) else None


def _default_class(node: Any, path: list[str]) -> str | None:
    for name in path:
        node = node.get("init_args", {}) if "class_path" in node else node
        node = node.get(name)
        if not isinstance(node, dict):
            return None
    return node.get("class_path") if isinstance(node, dict) else None


def nearest_flag(command: Command, word: str) -> str | None:
    """Returns the flag of a nested option that a user may mean, such as --trainer.seed for seed.

    Args:
        command: Command.
        word: Unknown flag, without dashes; it matches the last words of an option, joined by
            underscores.
    """
    found = [flag for flag in _nested(command) if f"_{flag.split('.')[-1]}".endswith(f"_{word}")]
    found.sort(
        key=lambda flag: (
            flag.split(".")[-1] != word,
            flag.count("."),
            not flag.startswith("trainer."),
        )
    )
    return f"--{found[0]}" if found else None


def _nested(command: Command) -> Iterator[str]:
    """Yields the dotted flags of the options of groups and of parts with a default class."""
    waiting = [(argument.name, argument) for argument in arguments_of(command)]
    while waiting:
        flag, argument = waiting.pop(0)
        read = class_of(command, argument, flag, {})
        given = command.given.get(flag, {})
        for inner in () if read is None else read.arguments.values():
            if inner.name not in given:
                yield f"{flag}.{inner.name}"
                waiting.append((f"{flag}.{inner.name}", inner))
