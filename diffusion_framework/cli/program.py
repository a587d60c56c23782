"""The program: finds a command, and answers questions about it without importing PyTorch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..parts.errors import BadPart, expected
from ..parts.search import unknown_name
from ..parts.table import PACKAGE
from .commands import COMMANDS
from .help import help_page, program_page


def run_program(words: Sequence[str], prog: str = "diffusion") -> None:
    """Runs the program.

    Args:
        words: Command line, without the program: the name of a command and its words.
        prog: Words that start the program, for its texts.
    """
    if words and words[0] in COMMANDS:
        run_command(words[0], words[1:], f"{prog} {words[0]}")
        return
    with _one_line():
        if not words or words[0] in ("--help", "-h", "help"):
            print(program_page())
        elif words[0] == "--version":
            print(vars(import_module(PACKAGE))["__version__"])
        elif words[0] == "--complete":
            print("\n".join(import_module(f"{__package__}.completion").complete()))
        else:
            raise unknown_name("", f"a command of {prog}", words[0], list(COMMANDS))


def run_command(name: str, words: Sequence[str], prog: str | None = None) -> None:
    """Runs a command of the program.

    Args:
        name: Name of the command.
        words: Its command line.
        prog: Words that start the command, for its texts; None for the program `diffusion`.
    """
    prog = prog or f"diffusion {name}"
    topic = _help_topic(words)
    if topic is not None:
        with _one_line():
            print(help_page(name, prog, topic))
        sys.exit(0)
    command = COMMANDS[name]
    if command.light:
        with _one_line():
            load(command.home)(*_few(words, prog, command.usual))
        return
    from .common import run

    below = None if command.base_config is None else load(command.base_config)
    run(load(command.home), words, prog, command, below)


def load(home: str) -> Any:
    """Returns the function 'module:function' of this folder."""
    module, function = home.split(":")
    return vars(import_module(f"{__package__}.{module}"))[function]


def _help_topic(words: Sequence[str]) -> str | None:
    """Returns the word after --help, '' for none; None without --help."""
    for place, word in enumerate(words):
        if word == "--":
            break
        name, equals, topic = word.partition("=")
        if name not in ("--help", "-h"):
            continue
        after = words[place + 1 : place + 2]
        return topic if equals else after[0] if after and not after[0].startswith("-") else ""
    return None


def _few(words: Sequence[str], prog: str, wanted: Mapping[str, Any]) -> Sequence[str]:
    """Returns the words of a command without options.

    Raises:
        BadPart: If there are more words than the command takes, or options.
    """
    wrong = [word for word in words if word.startswith("-")] or words[len(wanted) :]
    if wrong:
        raise BadPart(expected("", f"no options of {prog}", f"{wrong[0]!r:.60}", "leave it out"))
    return words


@contextmanager
def _one_line() -> Iterator[None]:
    """Ends the program with one line and exit code 2 at an error that the user can correct."""
    try:
        yield
        sys.stdout.flush()
    except BadPart as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of the output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
