"""The words of a command line, and the tree of options that they and config files make."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..parts import BadPart, Typed, fold

_NUMBER = re.compile(r"-(\d|\.\d|\.?inf)\S*")


def split(
    words: Sequence[str], alone: Collection[str]
) -> tuple[list[Typed], list[tuple[str, Typed]]]:
    """The words without dashes, and pairs of a flag and its value.

    Args:
        words: The command line, without the program.
        alone: Flags that may stand without a value, which then is 'true'.

    Raises:
        BadPart: a flag without a value, or an option with one dash.
    """
    plain: list[Typed] = []
    pairs: list[tuple[str, Typed]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*plain, *map(Typed, rest)], pairs
        if word == "-h":
            word = "--help"
        if not word.startswith("-") or _NUMBER.fullmatch(word):
            plain.append(Typed(word))
            continue
        if not word.startswith("--"):
            raise BadPart(f"{word}: expected options with two dashes. Fix: -{word}.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            follows = bool(rest) and (
                not rest[0].startswith("-") or bool(_NUMBER.fullmatch(rest[0]))
            )
            if (
                name in alone
                and not (follows and rest[0] in ("true", "false"))
                and not (follows and name in ("help", "print_config"))
            ):
                value = "" if name in ("help", "print_config") else "true"
            elif follows:
                value = rest.pop(0)
            else:
                raise BadPart(f"--{name} needs a value.")
        pairs.append((name.replace("-", "_"), Typed(value)))
    return plain, pairs


def nested(name: str, value: Any) -> dict[str, Any]:
    """`a.b.c` with a value as the tree {a: {b: {c: value}}}."""
    first, *others = [part for part in name.split(".") if part not in ("class_path", "init_args")]
    return {first: nested(".".join(others), value) if others else value}


def overlay(below: Any, above: Any) -> Any:
    """Two trees as one, where the upper one's values win.

    A part keeps its options if the upper tree names the same class or only options, and loses them
    if it names another class.
    """
    if isinstance(above, str) and isinstance(below, Mapping) and "class_path" in below:
        return (
            {**below, "class_path": above}
            if _same(below["class_path"], above)
            else {"class_path": above}
        )
    if not isinstance(above, Mapping):
        return above
    if isinstance(below, str):  # a name, which now gets options
        below = {"class_path": below}
    if not isinstance(below, Mapping):
        return above
    if "class_path" in above:
        if not _same(below.get("class_path"), above["class_path"]):
            return above
        options = overlay(below.get("init_args") or {}, above.get("init_args") or {})
        return {"class_path": above["class_path"], "init_args": options}
    if "class_path" in below:
        options = above["init_args"] if set(above) == {"init_args"} else above
        return {
            "class_path": below["class_path"],
            "init_args": overlay(below.get("init_args") or {}, options),
        }
    merged = dict(below)
    for key, value in above.items():
        merged[key] = overlay(below[key], value) if key in below else value
    return merged


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    return fold(one.split(".")[-1]) == fold(other.split(".")[-1])
