"""Classes that a command's user asks for, by number or by name."""

from __future__ import annotations

from collections.abc import Sequence

from ..parts import unknown_name


def chosen_classes(
    asked: Sequence[int | str] | None, count: int | None, names: Sequence[str]
) -> list[int]:
    """Returns the numbers of the classes that samples take in turn.

    Args:
        asked: Names or numbers of classes; None for all. A name comes before a number: in a folder
            with the classes 10 and 2, the word 2 is the second class.
        count: Number of classes of the network, or None without classes.
        names: Names of the classes 0, 1, ...; empty if unknown.

    Returns:
        Numbers of classes; empty for a network without classes.

    Raises:
        ValueError: If a class does not exist, or the network has none.
    """
    if asked is None:
        return list(range(count or 0))
    if count is None:
        raise ValueError(
            "--labels: expected a network with classes, got one trained without labels. "
            "Fix: leave --labels out."
        )
    return [_number(str(one), count, names) for one in asked]


def _number(word: str, count: int, names: Sequence[str]) -> int:
    if word in names:
        return list(names).index(word)
    if word.lstrip("-").isdecimal():
        if 0 <= int(word) < count:
            return int(word)
        raise ValueError(
            f"--labels: expected classes from 0 to {count - 1}, got {word}. Fix: choose others."
        )
    if names:
        raise unknown_name("--labels", "the name or number of a class", word, names)
    raise ValueError(
        f"--labels: expected whole numbers from 0 to {count - 1}, got {word!r:.60}. "
        "Fix: give numbers; this run has no names of classes."
    )
