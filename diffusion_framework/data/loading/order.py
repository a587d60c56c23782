"""A shuffled order that is computed, not stored: position n costs the same at a thousand and at a billion images."""

from __future__ import annotations

import math

import numpy as np

from ...process.noise import mix

_ROUNDS = 16  # with half of them, pairs in sets of five or seven are visibly uneven


def permute(positions: np.ndarray, length: int | np.ndarray, key: int | np.ndarray) -> np.ndarray:
    """What stands at these positions of a shuffled range(length): for each key and length one bijection.

    The range is laid out in rows and columns, about as many of each. A Feistel network (Black & Rogaway 2002, sec. 5)
    moves rows by functions of the column and columns by functions of the row, which can be undone round by round. The
    rectangle has a few places more than `length`; whoever comes out at one of them walks on.

    Args:
        positions: Integers in [0, length), of one dimension or more.
        length: At least 1, at most 2**58: one for all positions, or one for each.
        key: Seeds as from `mix`: one for all positions, or one for each.

    Returns:
        Integers in [0, length), uint64, of the same shape.

    Raises:
        IndexError: a position out of range.
    """
    positions = np.asarray(positions, np.uint64)
    if (positions >= length).any():
        raise IndexError(f"positions must lie in [0, {length}); got {positions.max()}")
    rows, columns = _sides(length)
    out = _shuffle(positions, rows, columns, key)
    while (outside := out >= length).any():
        rest = (np.broadcast_to(np.asarray(value, np.uint64), out.shape)[outside] for value in (rows, columns, key))
        out[outside] = _shuffle(out[outside], *rest)
    return out


def _sides(length: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the smallest such rectangle of at least `length` places."""
    lengths, where = np.unique(np.asarray(length, np.uint64), return_inverse=True)
    rows = np.array([math.isqrt(each - 1) + 1 for each in lengths.tolist()], np.uint64)
    where = where.reshape(np.shape(length))
    return rows[where], ((lengths + rows - np.uint64(1)) // rows)[where]


def _shuffle(places: np.ndarray, rows: np.ndarray, columns: np.ndarray, key: int | np.ndarray) -> np.ndarray:
    """A bijection of [0, rows * columns)."""
    row, column = np.divmod(places, columns)
    for turn in range(0, _ROUNDS, 2):
        row = (row + mix(column * np.uint64(_ROUNDS) + np.uint64(turn) + np.uint64(key))) % rows
        column = (column + mix(row * np.uint64(_ROUNDS) + np.uint64(turn + 1) + np.uint64(key))) % columns
    return row * columns + column
