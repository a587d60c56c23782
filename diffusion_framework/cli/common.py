"""Runs commands from typed words.

A command is a function: its signature gives the flags, and its docstring gives the help.
"""

from __future__ import annotations

import inspect
import os
import shlex
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..parts import BadPart, Plan, Typed, convert, read_yaml, unknown_name
from ..parts.errors import expected, one_line
from ..parts.signatures import members
from ..storage.checkpoint import list_checkpoints
from ..storage.run_paths import absolute_from_run
from .commands import Command
from .flags import find_argument, nearest_flag
from .messages import one_line_errors, one_line_warnings
from .print_config import config_text
from .recipes import recipe_path
from .words import nested, overlay, split, without_replaced

Tree = dict[str, Any]


@dataclass(frozen=True)
class Below:
    """The options that lie below the flags.

    Attributes:
        tree: The options, or an example of those that `choose` returns.
        choose: Chooses the options, once all flags have been checked; it may take seconds. It also
            returns lines that say what was chosen.
    """

    tree: Tree
    choose: Callable[[], tuple[Tree, list[str]]] | None = None


BaseConfig = Callable[[Tree, list[str], Callable[[Path], Tree]], Below]
AUTOMATIC = "auto"  # recipe that is chosen for the data
_COMMON = ("config", "trust", "print_config")


def run(
    command: Callable[..., Any],
    words: Sequence[str],
    prog: str,
    row: Command,
    base_config: BaseConfig | None = None,
) -> None:
    """Runs a command; an error that the user can correct ends it with one line and exit code 2.

    Args:
        command: Function to call. Its keyword-only parameters are flags, and its other parameters
            are words without dashes. Parts arrive as plans.
        words: Command line, without the program.
        prog: Words that start the command.
        row: Row of the command in the table.
        base_config: Returns the options that lie below the flags. It takes the tree of the flags,
            the configs that were named, and the function that reads a config file.
    """
    with one_line_errors(prog, words), one_line_warnings():
        tree, trust, printing, below = _read(command, words, prog, row, base_config)

        def planned(under: Tree) -> dict[str, Any]:
            whole = overlay(without_replaced(under, tree), tree)
            return _arguments(command, overlay(row.defaults, whole), whole, trust, row, prog)

        arguments = planned(below.tree)
        notes: list[str] = []
        if below.choose is not None:
            chosen, notes = below.choose()
            arguments = planned(chosen)
        if printing:
            arguments.pop("trust", None)
            print("".join(f"# {line}\n" for line in notes) + config_text(arguments, row.given))
            sys.exit(0)
        if notes and os.environ.get("RANK", "0") == "0":
            print("\n".join(notes), flush=True)
        parameters = inspect.signature(command).parameters.values()
        several = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
        command(*(arguments.pop(several[0]) if several else ()), **arguments)


def _read(
    command: Callable[..., Any],
    words: Sequence[str],
    prog: str,
    row: Command,
    base_config: BaseConfig | None,
) -> tuple[Tree, tuple[str, ...], bool, Below]:
    """Returns the options of configs and flags, the trusted packages, whether to print the options,
    and what lies below them."""
    parameters = list(inspect.signature(command).parameters.values())
    switches = _switches(command, parameters)
    options = [p.name for p in parameters if p.name not in _COMMON]
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in options]
    known = [f"--{name}" for name in (*named, *_COMMON, "help")]

    def check_name(name: str) -> None:
        flag = f"--{name.split('.')[0]}"
        if flag not in known:
            if inner := nearest_flag(row, name):
                raise BadPart(expected("", f"an option of {prog}", repr(flag), f"write {inner!r}"))
            raise unknown_name("", f"an option of {prog}", flag, known)

    plain, pairs = split(words, {**switches, "print_config": ()}, check_name)
    pairs += _stood_for(row.words, plain, pairs)
    flags = _tree(pairs, row.repeated) | _positional(parameters, plain, prog)
    configs = [str(value) for name, value in pairs if name == "config"]
    trust = tuple(word for name, value in pairs if name == "trust" for word in value.split(","))
    tree: Tree = {}
    for path in configs:
        if path == AUTOMATIC and base_config:  # lies below all others
            continue
        config = _config(_config_path(path), options, prog)
        tree = overlay(without_replaced(tree, config), config)
    tree, below = overlay(without_replaced(tree, flags), flags), Below({})
    if base_config:
        below = base_config(tree, configs, lambda file: _config(file, options, prog))
    return tree, trust, any(name == "print_config" for name, _ in pairs), below


def _tree(pairs: Sequence[tuple[str, Typed]], repeated: Collection[str]) -> Tree:
    """Returns the tree of flags; those that may be repeated become lists."""
    flags: Tree = {}
    for name, value in sorted(pairs, key=lambda pair: pair[0].count(".")):
        if name not in (*_COMMON, *repeated):
            flags = overlay(flags, nested(name, value))
    for name in repeated:
        if several := [value for flag, value in pairs if flag == name]:
            flags[name] = several
    return flags


def _stood_for(
    words: Mapping[str, str], plain: list[Typed], pairs: Sequence[tuple[str, Typed]]
) -> list[tuple[str, Typed]]:
    """Returns the flags that words without dashes stand for, and takes these from the list."""
    found = []
    for (shown, flag), word in zip(words.items(), [*plain], strict=False):
        if any(name == flag for name, _ in pairs):
            fix = "leave one of them out"
            raise BadPart(expected("", f"{shown} or --{flag}, not both", f"{word!r:.60}", fix))
        found.append((flag, plain.pop(0)))
    return found


def _config_path(name: str) -> Path:
    """Returns the path of a config file, of a recipe, or of the newest config of a run."""
    path = Path(name)
    if path.is_dir() and (checkpoints := list_checkpoints(path)):
        return checkpoints[-1] / "config.yaml"
    return (
        recipe_path(name) if path.name == name and not path.suffix and not path.is_file() else path
    )


def _switches(
    command: Callable[..., Any], parameters: Sequence[inspect.Parameter]
) -> dict[str, Collection[str] | None]:
    """Returns the flags whose value may be omitted, with the words that may follow; None for any.

    They are off by default, or may be true besides values of other types.
    """
    hints = typing.get_type_hints(command)
    found: dict[str, Collection[str] | None] = {
        p.name: None for p in parameters if p.default is None and bool in members(hints[p.name])
    }
    return found | {p.name: _values(command, p.name) for p in parameters if p.default is False}


def _values(command: Callable[..., Any], name: str) -> set[str]:
    """Returns the words that may follow a switch: true, false, and those of its annotation."""
    choices = typing.get_args(typing.get_type_hints(command)[name])
    return {"true", "false"} | {word for choice in choices for word in typing.get_args(choice)}


def _positional(parameters: Sequence[inspect.Parameter], plain: list[Typed], prog: str) -> Tree:
    found: Tree = {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL and plain:
            found[parameter.name], plain = plain, []
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD and plain:
            found[parameter.name], plain = plain[0], plain[1:]
    if plain:
        raise BadPart(
            f"Expected options of {prog}, got {plain[0]!r:.60}. Fix: leave it out, or see --help."
        )
    return found


def _config(path: Path, known: Sequence[str], prog: str) -> Tree:
    """Returns the options in a config file, with paths from the results folder of its run."""
    if not path.is_file():
        raise BadPart(f"--config: expected an existing file, got {path}. Fix: correct the path.")
    tree = read_yaml(path.read_bytes(), str(path))
    if not isinstance(tree, dict):
        raise BadPart(f"{path}: expected options, got none. Fix: start from --print_config.")
    if unknown := [key for key in tree if key not in known]:
        raise unknown_name(str(path), f"an option of {prog}", unknown[0], known)
    paths: Tree = absolute_from_run(tree, Path(os.path.abspath(path)).parent / ".." / "..")
    return paths


def _arguments(
    command: Callable[..., Any],
    tree: Tree,
    typed: Tree,
    trust: Sequence[str],
    row: Command,
    prog: str,
) -> dict[str, Any]:
    """Returns the command's arguments, checked.

    A part with a default is taken from the tree only if `typed` names it.
    """
    hints, found = typing.get_type_hints(command), {}
    for parameter in inspect.signature(command).parameters.values():
        name, needed = parameter.name, parameter.default is inspect.Parameter.empty
        flat = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if name == "trust":
            found[name] = tuple(trust)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            found[name] = tuple(str(word) for word in tree.get(name, ()))
        elif name in tree and (needed or name in typed):
            where = name if flat else f"--{name}"
            context: dict[str, Any] = {"trust": trust, "where": where, "given": row.given.get(name)}
            try:
                found[name] = convert(tree[name], hints[name], **context)
            except BadPart as error:
                raise _folder_meant(error, row, name, tree[name]) from None
        elif needed:
            shown = name.upper() if flat else f"--{name}"
            raise BadPart(
                f"{shown}: expected a value, got none. Fix: give it; {prog} --help describes it."
            )
        elif not flat:
            found[name] = parameter.default
    return found


def _folder_meant(error: BadPart, row: Command, name: str, value: Any) -> BadPart:
    """Returns the error, or one that names the flag for folders if the word is a folder's name."""
    word = value.get("class_path") if isinstance(value, Mapping) else value
    if not isinstance(word, Typed) or not Path(word).is_dir():
        return error
    if find_argument(row, f"{name}.folder", {name: "ImageFolder"}) is None:
        return error
    fix = f"write --{name}.folder {shlex.quote(word)}"
    return BadPart(expected(f"--{name}", "a kind of dataset", "the name of a folder", fix))


def check_positive(**numbers: int) -> None:
    """Raises ValueError for a number below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(
                f"--{name}: expected at least 1, got {number}. Fix: give a whole number above 0."
            )


def built(value: Any) -> Any:
    """Returns the object of a plan, or any other value of a flag as it is."""
    return value.build() if isinstance(value, Plan) else value


def device_named(name: str, flag: str = "--device") -> torch.device:
    """Returns the device of a name after trying it; 'auto' is the first GPU, if one exists."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        cause = one_line(error, 80)
        raise ValueError(
            f"{flag}: expected a usable device, got {name!r} ({cause}). Fix: choose cpu."
        ) from error
