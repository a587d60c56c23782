"""Completion of command lines in a shell."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Sequence
from typing import Literal

from ..parts.annotations import group, kinds, literals
from ..parts.outline import Argument, homes_of, outline
from ..parts.search import unknown_name
from ..parts.table import PACKAGE
from ..recipes import recipe_folder
from .commands import COMMANDS, Command
from .flags import class_of, find_argument

_SHELLS = {
    "bash": "complete -o default -C 'diffusion --complete' diffusion",
    "zsh": "autoload -U +X bashcompinit && bashcompinit\n"
    "complete -o default -C 'diffusion --complete' diffusion",
    "fish": "complete -c diffusion -a "
    "'(env COMP_LINE=(commandline -cp) COMP_POINT=9999 diffusion --complete)'",
}


def completion(shell: Literal["bash", "zsh", "fish"] = "bash") -> None:
    """Prints the line that switches on completion in a shell.

    Examples:
      eval "$(diffusion completion bash)"       in ~/.bashrc
      eval "$(diffusion completion zsh)"        in ~/.zshrc
      diffusion completion fish > ~/.config/fish/completions/diffusion.fish

    Args:
        shell: Shell.

    Raises:
        BadPart: If the shell is unknown.
    """
    if shell not in _SHELLS:
        raise unknown_name("", "a shell", shell, list(_SHELLS))
    print(_SHELLS[shell])


def complete() -> list[str]:
    """Returns the words that can end the command line in COMP_LINE, as bash's `complete -C` asks.

    An empty list leaves the completion of files to the shell.
    """
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0") or 0)]
    try:
        words = shlex.split(line)
    except ValueError:  # an open quotation mark
        return []
    last = "" if not line or line[-1].isspace() else words.pop()
    return [word for word in _candidates(words[1:], last) if word.startswith(last)]


def _candidates(words: Sequence[str], last: str) -> list[str]:
    """Returns the words that can follow the words of a command line."""
    if not words:
        return [*COMMANDS, "--help", "--version"]
    command = COMMANDS.get(words[0])
    if command is None:
        return []
    chosen = {flag[2:]: value for flag, value in itertools.pairwise(words) if flag.startswith("--")}
    before = words[-1]
    if before == "--config" and last:  # without a letter, the shell offers files
        return sorted(path.stem for path in recipe_folder().glob("*.yaml"))
    if before.startswith("--") and "=" not in before:
        argument = find_argument(command, before[2:], chosen)
        values = [] if argument is None else _values(argument)
        if values or (argument is not None and not last.startswith("-")):
            return values
    return _flags(command, chosen, last) if last.startswith("-") else []


def _values(argument: Argument) -> list[str]:
    """Returns the words that an option takes."""
    names = [name for kind in kinds(argument) for name in homes_of(kind)]
    return names + literals(argument)


def _flags(command: Command, chosen: dict[str, str], last: str) -> list[str]:
    """Returns the flags of a command; of a part or group only below its own flag."""
    path, dot, _ = last[2:].rpartition(".")
    if dot:
        argument = find_argument(command, path, chosen)
        read = None if argument is None else class_of(command, argument, path, chosen)
        return [] if read is None else [f"--{path}.{name}" for name in read.arguments]
    read = outline(f"{PACKAGE}.cli.{command.home}")
    found = []
    for argument in () if read is None else read.arguments.values():
        if not argument.flat:
            found.append(f"--{argument.name}")
            deeper = class_of(command, argument, argument.name, chosen)
            found += [f"--{argument.name}."] if deeper or group(argument) else []
    return [*found, "--config", "--help", "--print_config"]
