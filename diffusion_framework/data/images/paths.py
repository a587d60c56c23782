"""Many file paths in two arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, final, overload

import numpy as np


@final
class Paths(Sequence[str]):
    """Immutable sequence of paths, which data workers read without using memory of their own.

    A worker shares the memory of its parent until it writes to it. Reading a list of strings writes
    to the reference counts of the strings, so each worker copies the list page by page. Here, the
    text of all paths is one array.

    Args:
        paths: Paths, which may hold bytes that are not valid text.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum(np.array([len(path) for path in encoded], np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = self._ends[position - 1] if position else 0
        return os.fsdecode(self._text[start : self._ends[position]].tobytes())

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Paths({self[:3]}, {len(self)} in all)"
