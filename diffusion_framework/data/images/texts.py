"""Many texts in two arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final, overload

import numpy as np

_CODE = "utf-8", "surrogatepass"  # names of files may hold bytes that are not valid text


@final
class Texts(Sequence[str]):
    """Immutable sequence of texts, which data workers read without using memory of their own.

    A worker shares the memory of its parent until it writes to it. Reading a list of strings writes
    to the reference counts of the strings, so each worker copies the list page by page. Here, all
    texts are one array.

    Args:
        texts: Texts, such as names of files or captions.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode(*_CODE) for text in texts]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum(np.array([len(text) for text in encoded], np.int64))

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
        return self._bytes[start : self._ends[position]].tobytes().decode(*_CODE)

    def chosen(self, indices: Iterable[int]) -> Texts:
        """Returns the texts at these indices, in their order."""
        return Texts([self[int(index)] for index in indices])

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts({self[:3]}, {len(self)} in all)"
