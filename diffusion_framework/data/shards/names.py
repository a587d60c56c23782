"""Names of shards: patterns with braces and wildcards."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from itertools import pairwise

_MOST_NAMES = 1_000_000


def shard_names(shards: str | Sequence[str]) -> list[str]:
    """Expands patterns into the names of shards, in order.

    Args:
        shards: Patterns with braces such as `{000..099}` (see `expand_braces`). Patterns of local
            files may also start with `~` and contain shell wildcards.

    Raises:
        ValueError: no name, malformed braces, or a wildcard that matches no file.
    """
    names = []
    for pattern in [shards] if isinstance(shards, str) else shards:
        for name in [pattern] if os.path.exists(pattern) else expand_braces(pattern):
            if is_remote(name):
                names.append(name)
                continue
            path = os.path.expanduser(name.removeprefix("file://"))
            found = (
                sorted(glob.glob(path))
                if glob.has_magic(path) and not os.path.exists(path)
                else [path]
            )
            if not found:
                raise ValueError(
                    f"Expected shards named {name!r}, got no match. Fix: check the path."
                )
            names += found
    if not names:
        raise ValueError(
            "Expected names of shards, got none. Fix: give tar files, such as train-{000..099}.tar."
        )
    return names


def expand_braces(text: str) -> list[str]:
    """Expands `a-{08..10}.tar` and `{train,val}.tar` as the shell does, nested braces included.

    Raises:
        ValueError: unbalanced braces, braces that hold neither a list nor a rising range, or more
            than a million names.
    """
    if "{" not in text and "}" not in text:
        return [text]
    malformed = ValueError(
        f"Expected braces such as {{000..099}} or {{a,b}}, got {text!r}. "
        "Fix: balance them, or let the range rise."
    )
    start = text.find("{")
    depth, cuts = 0, [start]
    for position in range(start, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0 or (depth == 1 and text[position] == ","):
            cuts.append(position)
        if depth == 0:
            break
    if start < 0 or depth or "}" in text[:start]:
        raise malformed
    items = [text[a + 1 : b] for a, b in pairwise(cuts)]
    if len(items) == 1:
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", items[0])
        if ends is None or int(ends[1]) > int(ends[2]):
            raise malformed
        if int(ends[2]) - int(ends[1]) >= _MOST_NAMES:
            raise _too_many(text)
        padded = any(len(end) > 1 and end[0] == "0" for end in ends.groups())
        width = max(map(len, ends.groups())) if padded else 0
        items = [f"{number:0{width}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]
    tails = expand_braces(text[cuts[-1] + 1 :])
    names: list[str] = []
    for item in items:
        for middle in expand_braces(item):
            if len(names) + len(tails) > _MOST_NAMES:
                raise _too_many(text)
            names += [text[:start] + middle + tail for tail in tails]
    return names


def _too_many(text: str) -> ValueError:
    return ValueError(
        f"Expected braces of at most {_MOST_NAMES} names, got more from {text!r:.60}. "
        "Fix: pack the samples in fewer shards."
    )


def is_remote(name: str) -> bool:
    """Returns whether a name is a URL for fsspec, such as s3://bucket/shard.tar."""
    return "://" in name and not name.startswith("file://")
