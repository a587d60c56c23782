"""Errors and warnings of commands, each on one line."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from ..parts import NotTrusted
from ..training.distributed import ProcessFailed
from ..training.launching import is_first_to_fail, world_size

_LONGEST = 1500  # characters of an error


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Shows warnings as one line each, without the place in the code that raised them."""

    def shown(message: Any, *_: Any, **__: Any) -> str:
        return f"warning: {_one_line(str(message))}\n"

    before, warnings.formatwarning = warnings.formatwarning, shown
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def one_line_errors(prog: str, words: Sequence[str]) -> Iterator[None]:
    """Ends the command with one line and exit code 2 at an error that a user can cause."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not str(interrupt):  # else the message was printed already
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ProcessFailed as error:
        _fail(str(error), said=error.said)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("DIFFUSION_FRAMEWORK_TRACEBACK"):
            raise
        message = str(error)
        if isinstance(error, NotTrusted):
            again = f"{prog} {shlex.join([*words, '--trust', error.package])}"
            message = (
                f"{message.partition(' Fix: ')[0]} Fix: if you trust that package, run {again}"
            )
        _fail(message)
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not full and "can't allocate memory" not in str(error):
            raise
        cause = str(error).partition(". ")[0] or "MemoryError"
        _fail(
            f"Expected enough memory, got an error ({cause:.200}). Fix: lower the batch size, or "
            "choose smaller samples or a smaller network."
        )


def _fail(message: str, said: bool = False) -> NoReturn:
    """Ends the script; of several processes, the first that fails prints the error.

    Args:
        message: Error.
        said: Whether another process prints it.
    """
    if not said and is_first_to_fail():
        rank = f"rank {os.environ.get('RANK', 0)}: " if world_size() > 1 else ""
        print(f"error: {rank}{_one_line(message)}", file=sys.stderr, flush=True)
    sys.exit(2)


def _one_line(message: str) -> str:
    """Returns a message on one line, without the traceback of a data worker."""
    if "Original Traceback" in message:  # its last line is the error itself
        message = message.strip().splitlines()[-1].partition(": ")[2]
    message = " ".join(message.split())
    half = _LONGEST // 2
    return message if len(message) <= _LONGEST else f"{message[:half]} ... {message[-half:]}"
