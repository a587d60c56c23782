"""Grids: the sequence of (now, to) levels that a sampler walks, computed once, in float64, as Python floats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .level import Level
from .schedules import NoiseSchedule

Grid = list[tuple[Level, Level]]


def uniform_times(steps: int, strength: float = 1.0) -> list[float]:
    """`steps + 1` evenly spaced times from `strength` down to 0.

    Args:
        steps: Number of steps, at least 1.
        strength: Time to start from, in (0, 1]; below 1 an image is only partly noised (SDEdit, Meng et al. 2022).
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least 1 step; got {steps}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1]; got {strength}")
    return [strength * (steps - i) / steps for i in range(steps + 1)]


def grid_of_times(schedule: NoiseSchedule, times: Sequence[float], time_difference: float = 0.0) -> Grid:
    """Pairs of levels at consecutive times.

    Args:
        schedule: Gives the level at each time.
        times: At least two times in [0, 1], falling.
        time_difference: Each step goes this much further down than where the next one starts, but not below 0
            ("asymmetric time intervals", Chen et al. 2023, "Analog bits", sec. 2.4), in units of time.

    Raises:
        ValueError: times that do not fall, are out of [0, 1], or fewer than two; a negative time difference.
    """
    if len(times) < 2:
        raise ValueError(f"a grid needs at least two times; got {list(times)}")
    if time_difference < 0:
        raise ValueError(f"time_difference must not be negative; got {time_difference}")
    for now, to in itertools.pairwise(times):
        if not now > to:
            raise ValueError(f"times must fall, from noisy to clean; got {now} then {to}: reverse or sort them")
    return [(schedule.at(now), schedule.at(max(to - time_difference, 0.0))) for now, to in itertools.pairwise(times)]
