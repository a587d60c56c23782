"""`Episodes`, demonstrations in memory, and the checks that their readers share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_LARGEST = float(np.finfo(np.float32).max)


class Episodes:
    """Concatenated steps of several episodes.

    Args:
        arrays: Arrays by name, [steps, ...], aligned by step.
        ends: Cumulative number of steps at the end of each episode, [episodes], as in a replay
            buffer.

    Raises:
        ValueError: If arrays and ends do not match, an episode is empty, or a value is NaN or
            infinite, in float32 too.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], ends: Sequence[int] | np.ndarray) -> None:
        self.arrays = {name: np.asarray(values) for name, values in arrays.items()}
        self.ends = _whole_numbers(ends)
        self.starts = np.concatenate([[0], self.ends[:-1]]).astype(np.int64)
        if not len(self.ends) or (self.ends <= self.starts).any():
            raise ValueError(
                f"Expected episode ends that increase from above 0, got {self.ends.tolist()[:10]}. "
                "Fix: give the cumulative number of steps at the end of each episode."
            )
        for name, values in self.arrays.items():
            steps = len(values) if values.ndim else "a single number"
            if steps != self.ends[-1]:
                raise ValueError(
                    f"Expected {self.ends[-1]} steps in {name!r}, where the last episode ends, got "
                    f"{steps}. Fix: give one row of each array for each step."
                )
            self._check_finite(name, values)

    def _check_finite(self, name: str, values: np.ndarray) -> None:
        """Raises ValueError for NaN, infinity, and numbers that are infinite in float32."""
        if values.dtype.kind != "f" or np.abs(values).max(initial=0) <= _LARGEST:
            return
        fits = (np.abs(values) <= _LARGEST).reshape(len(values), -1).all(axis=1)
        step = int(np.flatnonzero(~fits)[0])
        finite = bool(np.isfinite(values[step]).all())
        raise ValueError(
            f"Expected finite values in {name!r}, got "
            f"{'numbers above the largest float32' if finite else 'NaN or infinity'} in episode "
            f"{int(np.searchsorted(self.ends, step, side='right'))}, step {step}. "
            "Fix: clean the data."
        )

    def __len__(self) -> int:
        return len(self.ends)

    def select(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """Returns the chosen episodes, in the given order."""
        steps = np.concatenate([np.arange(self.starts[i], self.ends[i]) for i in episodes])
        lengths = (self.ends - self.starts)[np.asarray(episodes)]
        return Episodes(
            {name: values[steps] for name, values in self.arrays.items()}, np.cumsum(lengths)
        )

    def fingerprint(self) -> str:
        """Returns a hash of all values."""
        digest = hashlib.sha256(self.ends.tobytes())
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()


def _whole_numbers(ends: Any) -> np.ndarray:
    """Returns the ends of episodes as int64."""
    array = np.asarray(ends)
    if array.dtype.kind not in "iuf" or (array != array.astype(np.int64)).any():
        raise ValueError(
            f"Expected whole numbers as episode ends, got {ends!r:.60}. "
            "Fix: give the cumulative number of steps at the end of each episode."
        )
    return array.astype(np.int64).reshape(-1)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns any error of a reader into one line that names the path."""
    try:
        yield
    except Exception as error:  # decompressors and other packages raise errors of any class
        message = " ".join(str(error).split())
        if "Fix: " in message:
            raise ValueError(
                message if message.startswith(str(path)) else f"{path}: {message}"
            ) from error
        raise ValueError(
            f"{path}: expected arrays of numbers, got a file that cannot be read ({message:.200}). "
            "Fix: copy or export the data again."
        ) from error


def check_names(names: Sequence[str], found: Sequence[str], path: Path | str) -> None:
    """Raises ValueError if names are missing among those found at a path."""
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{path}: expected arrays named {', '.join(missing)}, got only "
            f"{', '.join(sorted(found))}. Fix: choose among these names."
        )
