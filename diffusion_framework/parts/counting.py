"""Numbers of things in words."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, such as '1 file' or '1,200 files'.

    Args:
        number: Number of things.
        noun: Noun in the singular, whose plural ends in s or es.
    """
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{'' if number == 1 else ending}"
