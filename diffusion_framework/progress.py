"""Progress of long work: a bar in a terminal or notebook, otherwise lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
_DELAY = 2.0  # seconds without any progress
_LONGEST = 600.0  # seconds between two lines


def shows_bars() -> bool:
    """Returns whether the output is a terminal or a notebook, where a bar can be redrawn."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class LineTimes:
    """Times of progress lines, at growing intervals: after 2 s, 3 s, 4.5 s, and so on."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self._next = _DELAY

    def is_due(self) -> bool:
        """Returns whether it is time for a line; the next one is due later."""
        elapsed = time.perf_counter() - self.began
        if elapsed < self._next:
            return False
        self._next = elapsed + min(elapsed / 2, _LONGEST)
        return True


def time_left(elapsed: float, share: float) -> str:
    """Returns the time that remains, such as '0:02:10 left', for a share done in (0, 1]."""
    return f"{timedelta(seconds=round(elapsed / share - elapsed))} left"


def progress(
    items: Iterable[T], total: int | None, name: str, *, shown: bool = True, unit: str = "step"
) -> Iterator[T]:
    """Yields the items and shows progress if the work takes longer than two seconds.

    A terminal and a notebook get a bar. Elsewhere, such as in a log file, a line is printed now and
    then, at growing intervals. Both go to the standard error.

    Args:
        items: Items to work on.
        total: Number of items; None if unknown.
        name: Name of the work.
        shown: Whether to show anything.
        unit: Name of an item.
    """
    if not shown or shows_bars():
        yield from tqdm(items, name, total, disable=not shown, unit=unit, delay=_DELAY)
        return
    times = LineTimes()
    for done, item in enumerate(items, 1):
        yield item
        if times.is_due():
            line = f"{name}: {unit} {done}"
            if total is not None:
                left = time_left(time.perf_counter() - times.began, done / total)
                line += f" of {total}, {left}"
            print(line, file=sys.stderr, flush=True)


class ProgressBar:
    """Bar, or lines, of work that several functions share.

    Args:
        total: Number of steps in all.
        name: Name of the work.
        shown: Whether to show anything.
    """

    def __init__(self, total: int, name: str, shown: bool) -> None:
        self._steps = progress(range(total), total, name, shown=shown)
        self._done, self._total = 0, total
        next(self._steps, None)  # begins with the first step, which `update` ends

    def update(self) -> None:
        """Counts one step."""
        self._done += 1
        next(self._steps, None)

    def update_to(self, share: float) -> None:
        """Counts steps up to a share of all in [0, 1]."""
        while self._done < int(share * self._total):
            self.update()
