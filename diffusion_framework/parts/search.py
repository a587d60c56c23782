"""The search for the class that a name stands for."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, get_origin

from .errors import BadPart, NotTrusted, expected, one_line
from .table import NOUNS, PACKAGE, TABLE, with_article

_MOST_LISTED = 24  # names in an error


class Typed(str):
    """A word of a command line, not parsed yet. It may name any class; no file can hold one."""


def fold(name: str) -> str:
    """Returns a name in lower case and without underscores, 'dpmsolver' for 'DPM_Solver'."""
    return name.replace("_", "").lower()


def nearest(word: str, known: Collection[str]) -> str | None:
    """Returns the known name nearest to a word, or None if none is near."""
    words = {fold(name).lstrip("-"): name for name in known}
    close = difflib.get_close_matches(fold(word[:80]).lstrip("-"), words, 1, 0.6)
    if close:
        return words[close[0]]
    return next((name for name in known if name.endswith(f"_{word}")), None)  # lr for train_lr


def unknown_name(where: str, wanted: str, name: str, known: Collection[str]) -> BadPart:
    """Returns the error for an unknown name, whose remedy is the nearest known name or a list.

    Args:
        where: Place of the name.
        wanted: Description of the known names, such as 'an option of UNet'.
        name: Unknown name; of an import path, the last word is compared.
        known: Known names.
    """
    close = nearest(name.rpartition(".")[2], known)
    fix = f"write {close!r}" if close else choose_one(known)
    return BadPart(expected(where, wanted, f"{name!r:.80}", fix))


def choose_one(known: Collection[str]) -> str:
    """Returns the remedy 'choose one of `known`'; of many names it gives only the number."""
    listed = (
        ", ".join(known) if len(known) <= _MOST_LISTED else f"the {len(known)} that --help shows"
    )
    return f"choose one of {listed}" if known else "remove it"


def noun(kind: type, article: bool = True) -> str:
    """Returns the word for parts of a kind in errors, such as 'a noise schedule'."""
    word = NOUNS.get(kind.__name__, kind.__name__)
    return with_article(word) if article else word


def parts_of(kind: type) -> list[tuple[str, type]]:
    """Returns the names and classes of the parts that are a `kind`; imports all parts."""
    parts = [(name, load_class(home)) for row in TABLE.values() for name, home in row.items()]
    return [(name, cls) for name, cls in parts if issubclass(cls, kind)]


def names_of(kind: type) -> list[str]:
    """Returns the class names of the parts that are a `kind`."""
    return [cls.__name__ for _, cls in parts_of(kind)]


def is_named(kind: type) -> bool:
    """Returns whether the table names parts of this kind."""
    return get_origin(kind) is None and bool(parts_of(kind))  # list[int] passes for a class on 3.10


def name_in_table(cls: type) -> str | None:
    """Returns the name of a class in the table, or None."""
    homes = {
        f"{PACKAGE}.{home.replace(':', '.')}": name
        for row in TABLE.values()
        for name, home in row.items()
    }
    return homes.get(f"{cls.__module__}.{cls.__qualname__}")


def find(name: Any, kind: type, trust: Collection[str] = (), where: str = "") -> type:
    """Returns the class that a name stands for.

    Args:
        name: Name in the table or of a class, in any case of letters, or an import path. Only the
            last word of a path within this package counts; other paths need `Typed` or `trust`.
        kind: Class that the result must be derived from.
        trust: Top-level packages whose classes a file may name.
        where: Place of the name, for errors.

    Raises:
        BadPart: If the class does not exist or is of another kind.
        NotTrusted: If the class belongs to another package.
    """
    if (
        not isinstance(name, str)
        or len(name) > 300
        or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name)
    ):
        example = next(iter(names_of(kind)), "UNet")
        fix = f"write a name such as {example}, or an import path"
        raise BadPart(expected(where, "the name of a class", f"{name!r:.60}", fix))
    root, last = name.split(".")[0], name.split(".")[-1]
    if "." not in name or root == PACKAGE:
        return _find_in_table(last, kind, where)
    if root == "__main__" and not isinstance(name, Typed):
        wanted, got = "a class of a module", f"{last:.60}, a class of the script that saved it"
        fix = "open it in Python with model=, or move the class to a module of its own"
        raise BadPart(expected(where, wanted, got, fix))
    if not isinstance(name, Typed) and root not in trust:
        got = f"{name:.80}, which runs code of {root:.40}"
        fix = f"pass trust=[{root!r:.42}] if you trust that package"
        raise NotTrusted(expected(where, f"a class of {PACKAGE}", got, fix), root)
    cls = _import(name, where)
    if not isinstance(cls, type) or not issubclass(cls, kind) or inspect.isabstract(cls):
        raise unknown_name(where, noun(kind), name, names_of(kind))
    if not isinstance(name, Typed) and cls.__module__.split(".")[0] not in (*trust, PACKAGE):
        got = f"{name:.80}, which comes from {cls.__module__}"
        fix = "name the class by its own module, and trust its package"
        raise BadPart(expected(where, "a class of a trusted package", got, fix))
    return cls


def _find_in_table(name: str, kind: type, where: str) -> type:
    """Returns the `kind` itself or the part derived from it, by the name of a row or a class."""
    if (
        kind.__module__.split(".")[0] == PACKAGE
        and fold(name) == fold(kind.__name__)
        and not inspect.isabstract(kind)
    ):
        return kind
    for row in TABLE.values():
        for key, home in row.items():
            if fold(name) in (fold(key), fold(home.split(":")[1])) and issubclass(
                cls := load_class(home), kind
            ):
                return cls
    raise unknown_name(where, noun(kind), name, names_of(kind))


def load_class(home: str) -> type:
    """Returns the class of a row of the table, given as 'module:Class'."""
    module, name = home.split(":")
    cls: type = getattr(import_module(f"{PACKAGE}.{module}"), name)
    return cls


def _import(path: str, where: str) -> Any:
    """Returns the object at an import path; the current folder is searched last."""
    module, _, name = path.rpartition(".")
    with _current_folder_searched():
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            got = f"{path:.80} ({one_line(error)})"
            fix = "check its spelling, and install its package"
            raise BadPart(expected(where, "a class that can be imported", got, fix)) from error


@contextmanager
def _current_folder_searched() -> Iterator[None]:
    """Appends the current folder to the search path of imports inside the context."""
    sys.path.append("")
    try:
        yield
    finally:
        if "" in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index("")]
