"""From typed words to a call: a command is a function, its signature the flags and its docstring
the help.
"""

from __future__ import annotations

import inspect
import os
import shlex
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..parts import BadPart, NotTrusted, Typed, convert, nearest, read_yaml
from .help import config_text, page, part_page
from .words import nested, overlay, split

Tree = dict[str, Any]
_EVERYWHERE = ("config", "trust", "help", "print_config")


def run(
    command: Callable[..., Any],
    words: Sequence[str],
    prog: str,
    *,
    defaults: Mapping[str, Any] | None = None,
    given: Mapping[str, Mapping[str, str]] | None = None,
    below: Callable[[Tree, bool], list[Path]] | None = None,
) -> None:
    """Run a command. What a user can mend ends the program with one line and exit code 2.

    Args:
        command: Its keyword-only parameters are flags, its others words without dashes. Parts
            arrive as plans.
        words: The command line, without the program.
        prog: Name of the script.
        defaults: Tree of classes that are meant where only options are given.
        given: For an argument of the command, options that the command supplies itself, with what
            they come from.
        below: From the tree of the flags and whether a config was named, the config files that
            lie below.
    """
    with one_line_errors(prog, words):
        tree, trust, asked = _read(command, words, prog, below)
        if "help" in asked:
            print(part_page(asked["help"]) if asked["help"] else page(command, prog, given or {}))
            sys.exit(0)
        arguments = _arguments(
            command, overlay(defaults or {}, tree), tree, trust, given or {}, prog
        )
        if "print_config" in asked:
            arguments.pop("trust", None)
            print(config_text(arguments, given or {}))
            sys.exit(0)
        parameters = inspect.signature(command).parameters.values()
        several = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
        command(*(arguments.pop(several[0]) if several else ()), **arguments)


def _read(
    command: Callable[..., Any],
    words: Sequence[str],
    prog: str,
    below: Callable[[Tree, bool], list[Path]] | None,
) -> tuple[Tree, tuple[str, ...], dict[str, str]]:
    """The tree of configs and flags, the trusted packages, and what else was asked for."""
    parameters = list(inspect.signature(command).parameters.values())
    alone = [p.name for p in parameters if p.annotation in (bool, "bool") and p.default is False]
    options = [p.name for p in parameters if p.name not in _EVERYWHERE]
    plain, pairs = split(words, {*alone, "help", "print_config"})
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in options] + list(
        _EVERYWHERE
    )
    for name, _ in pairs:
        if name.split(".")[0] not in names:
            raise BadPart(
                f"there is no --{name}.{nearest(f'--{name}', [f'--{n}' for n in names])} See "
                f"{prog} --help."
            )
    flags: Tree = {}
    for name, value in sorted(pairs, key=lambda pair: pair[0].count(".")):
        if name not in _EVERYWHERE:
            flags = overlay(flags, nested(name, value))
    flags |= _positional(parameters, plain, prog)
    configs = [str(value) for name, value in pairs if name == "config"]
    trust = tuple(word for name, value in pairs if name == "trust" for word in value.split(","))
    asked = {name: str(value) for name, value in pairs if name in ("help", "print_config")}
    tree: Tree = {}
    for path in configs:
        tree = overlay(tree, _config(Path(path), options, prog))
    tree = overlay(tree, flags)
    if below and not asked.get("help"):
        for file in reversed(below(tree, bool(configs))):
            tree = overlay(_config(file, options, prog), tree)
    return tree, trust, asked


def _positional(parameters: Sequence[inspect.Parameter], plain: list[Typed], prog: str) -> Tree:
    found: Tree = {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL and plain:
            found[parameter.name], plain = plain, []
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD and plain:
            found[parameter.name], plain = plain[0], plain[1:]
    if plain:
        raise BadPart(f"{prog} has no use for {plain[0]!r:.60}. See {prog} --help.")
    return found


def _config(path: Path, known: Sequence[str], prog: str) -> Tree:
    """The options in a config file."""
    if not path.is_file():
        raise BadPart(f"--config: there is no file {path}.")
    tree = read_yaml(path.read_bytes(), str(path))
    if not isinstance(tree, dict):
        raise BadPart(f"--config: {path} holds no options.")
    if unknown := [key for key in tree if key not in known]:
        raise BadPart(
            f"{path}: {prog} has no option {unknown[0]!r:.60}.{nearest(unknown[0], known)}"
        )
    return tree


def _arguments(
    command: Callable[..., Any],
    tree: Tree,
    typed: Tree,
    trust: Sequence[str],
    given: Mapping[str, Mapping[str, str]],
    prog: str,
) -> dict[str, Any]:
    """The command's arguments, checked.

    A part that has a default of None is asked for only where `typed` names it.
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
            context: dict[str, Any] = {"trust": trust, "where": where, "given": given.get(name)}
            found[name] = convert(tree[name], hints[name], **context)
        elif needed:
            raise BadPart(f"{name.upper() if flat else f'--{name}'} is missing. See {prog} --help.")
        elif not flat:
            found[name] = parameter.default
    return found


@contextmanager
def one_line_errors(prog: str, words: Sequence[str]) -> Iterator[None]:
    """What users can cause ends the script with one line and exit code 2."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not str(interrupt):  # else it was said already
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("DIFFUSION_FRAMEWORK_TRACEBACK"):
            raise
        message = str(error)
        if isinstance(error, NotTrusted):
            again = shlex.join(["python", f"scripts/{prog}", *words, "--trust", error.package])
            message += f" Fix, if you trust it: {again}"
        _fail(message)


def _fail(message: str) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # of several processes, one is enough to say it
        print(f"error: {_one_line(message)}", file=sys.stderr)
    sys.exit(2)


def _one_line(message: str) -> str:
    """The part of a message that helps, on one line."""
    if "Original Traceback" in message:  # from a data worker: its last line is the error itself
        message = message.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(message.split())


def check_positive(**numbers: int) -> None:
    """Raise ValueError for a number below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1; got {number}")


def device_named(name: str) -> torch.device:
    """The device of this name, tried; 'auto' is the first GPU, if there is one."""
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
        raise ValueError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try cpu"
        ) from error
