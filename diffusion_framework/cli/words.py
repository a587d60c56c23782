"""Splits the words of a command line, and merges trees of options."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..parts import BadPart, Typed, fold

_NAME = re.compile(r"(?!null$)[^\W\d][\w.]*")
_NUMBER = re.compile(r"-(\d|\.\d|\.?inf)\S*")


def split(
    words: Sequence[str],
    switches: Mapping[str, Collection[str] | None],
    check_name: Callable[[str], None] = lambda name: None,
) -> tuple[list[Typed], list[tuple[str, Typed]]]:
    """Returns the words without dashes, and pairs of a flag and its value.

    Args:
        words: Command line, without the program.
        switches: Flags whose value may be omitted, which then is 'true', with their values, or None
            for any value.
        check_name: Function that raises BadPart for the name of an unknown flag.

    Raises:
        BadPart: If a flag has no value or an empty one, or an option has one dash.
    """
    plain: list[Typed] = []
    pairs: list[tuple[str, Typed]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*plain, *map(Typed, rest)], pairs
        if not word.startswith("-") or _NUMBER.fullmatch(word):
            plain.append(Typed(word))
            continue
        if not word.startswith("--"):
            raise BadPart(
                f"Expected options with two dashes, got {word:.60}. Fix: write -{word:.60}."
            )
        name, equals, value = word[2:].partition("=")
        check_name(name.replace("-", "_"))
        if not equals:
            follows = bool(rest) and (
                not rest[0].startswith("-") or bool(_NUMBER.fullmatch(rest[0]))
            )
            if (
                name in switches
                and not (follows and _takes(switches[name], rest[0]))
                and not (follows and name == "print_config")
            ):
                value = "" if name == "print_config" else "true"
            elif follows:
                value = rest.pop(0)
            else:
                raise BadPart(
                    f"--{name:.60}: expected a value, got none. Fix: write it after the flag."
                )
        _check_value(name, value)
        pairs.append((name.replace("-", "_"), Typed(value)))
    return plain, pairs


def _takes(values: Collection[str] | None, word: str) -> bool:
    return values is None or word in values


def _check_value(name: str, value: str) -> None:
    """Raises BadPart for an empty value."""
    if not value.strip() and name != "print_config":
        raise BadPart(
            f"--{name:.60}: expected a value, got an empty word, as from an unset variable. "
            "Fix: give a value, or leave the flag out."
        )


def nested(name: str, value: Any) -> dict[str, Any]:
    """Returns the tree {a: {b: {c: value}}} for the name `a.b.c`."""
    first, *others = [part for part in name.split(".") if part not in ("class_path", "init_args")]
    return {first: nested(".".join(others), value) if others else value}


def overlay(below: Any, above: Any) -> Any:
    """Merges two trees; values of the upper tree take precedence.

    A part keeps the options of the lower tree if the upper tree names the same class or no class.
    If the upper tree names another class, the part loses them. A word that names no class, such as
    a number, replaces the part.
    """
    if isinstance(above, str) and _NAME.fullmatch(above) and is_part(below):
        return (
            {**below, "class_path": above}
            if _same(below["class_path"], above)
            else {"class_path": above}
        )
    if not isinstance(above, Mapping):
        return above
    if isinstance(below, str):  # a name without options
        below = {"class_path": below}
    if not isinstance(below, Mapping):
        return above
    if "class_path" in above:
        if not _same(below.get("class_path"), above["class_path"]):
            return above
        options = overlay(below.get("init_args") or {}, above.get("init_args") or {})
        return {"class_path": above["class_path"], "init_args": options}
    if is_part(below):
        options = above["init_args"] if set(above) == {"init_args"} else above
        return {
            "class_path": below["class_path"],
            "init_args": overlay(below.get("init_args") or {}, options),
        }
    merged = dict(below)
    for key, value in above.items():
        merged[key] = overlay(below[key], value) if key in below else value
    return merged


def without_replaced(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the lower tree without a length of training that the upper tree gives otherwise."""
    lengths = {"minutes", "train_num_steps"}
    trainers = below.get("trainer"), above.get("trainer")
    if not all(isinstance(trainer, Mapping) for trainer in trainers):
        return dict(below)
    lower, upper = ({**trainer} for trainer in trainers if isinstance(trainer, Mapping))
    if lengths.isdisjoint(upper):
        return dict(below)
    return {**below, "trainer": {k: v for k, v in lower.items() if k not in lengths}}


def is_part(node: Any) -> bool:
    """Returns whether a node of a tree names a class."""
    return isinstance(node, Mapping) and "class_path" in node


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    return fold(one.split(".")[-1]) == fold(other.split(".")[-1])
