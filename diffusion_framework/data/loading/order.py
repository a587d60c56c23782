"""A shuffled order that is computed, not stored, at a cost independent of the dataset's size."""

from __future__ import annotations

import math

import numpy as np

from ...process.noise import mix

_ROUNDS = 16  # with 8, pairs in sets of five or seven are visibly uneven


def permute(positions: np.ndarray, length: int | np.ndarray, key: int | np.ndarray) -> np.ndarray:
    """Returns the elements at these positions of a shuffled range(length).

    Each key and length define one bijection of [0, length). The range is laid out in about as many
    rows as columns. A Feistel network (Black & Rogaway 2002, sec. 5) shifts rows by
    functions of the column, and columns by functions of the row, which is invertible round by
    round. The rectangle has slightly more than `length` cells; results outside are shuffled again.

    Args:
        positions: Integers in [0, length), of one dimension or more.
        length: One length for all positions or one for each, in [1, 2**58].
        key: One seed (see `mix`) for all positions or one for each.

    Returns:
        Integers in [0, length), uint64, in the shape of `positions`.

    Raises:
        IndexError: a position out of range.
    """
    positions = np.asarray(positions, np.uint64)
    if (positions >= length).any():
        raise IndexError(
            f"Expected positions in [0, {length}), got {positions.max()}. "
            "Fix: take them modulo length."
        )
    rows, columns = _sides(length)
    out = _shuffle(positions, rows, columns, key)
    while (outside := out >= length).any():
        rest = (
            np.broadcast_to(np.asarray(value, np.uint64), out.shape)[outside]
            for value in (rows, columns, key)
        )
        out[outside] = _shuffle(out[outside], *rest)
    return out


def _sides(length: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the smallest near-square rectangle of at least `length` cells."""
    lengths, where = np.unique(np.asarray(length, np.uint64), return_inverse=True)
    rows = np.array([math.isqrt(each - 1) + 1 for each in lengths.tolist()], np.uint64)
    where = where.reshape(np.shape(length))
    return rows[where], ((lengths + rows - np.uint64(1)) // rows)[where]


def _shuffle(
    cells: np.ndarray, rows: np.ndarray, columns: np.ndarray, key: int | np.ndarray
) -> np.ndarray:
    """Applies a bijection of [0, rows * columns)."""
    row, column = np.divmod(cells, columns)
    for round_ in range(0, _ROUNDS, 2):
        row = (row + mix(column * np.uint64(_ROUNDS) + np.uint64(round_) + np.uint64(key))) % rows
        column = (
            column + mix(row * np.uint64(_ROUNDS) + np.uint64(round_ + 1) + np.uint64(key))
        ) % columns
    return row * columns + column
