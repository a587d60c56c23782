"""Grids by the name of their spacing."""

from __future__ import annotations

from typing import Literal

from ...process.level import Level
from ...process.schedules import NoiseSchedule
from .levels import Grid, grid_of_log_snrs, grid_of_times
from .optimal import optimal_log_snrs
from .sigmas import evenly, uniform_log_snrs
from .times import check_steps, uniform_times

Spacing = Literal["time", "log_snr", "optimal"]
"""How steps are spaced: even in time, even in log-SNR, or so as to minimise a bound on a solver's error."""


def spaced_grid(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing = "time",
    *,
    first: Level | None = None,
    last: Level | None = None,
    time_difference: float = 0.0,
) -> Grid:
    """A grid of `steps` steps, of which the last leads to the clean end.

    Args:
        schedule: Gives the levels.
        steps: Number of steps, at least 1.
        spacing: How they are spaced.
        first: Level where the first step starts; None is time 1.
        last: Level where the last step starts; None leaves it to the spacing.
        time_difference: As for `grid_of_times`; with spacing 'time' only.

    Raises:
        ValueError: fewer than one step, an unknown spacing, or levels in the wrong order.
    """
    check_steps(steps)
    if spacing not in ("time", "log_snr", "optimal"):
        raise ValueError(f"Expected spacing as time, log_snr or optimal, got {spacing!r}. Fix: spacing='time'.")
    if first is not None and last is not None and not first.t > last.t:
        raise ValueError(
            f"Expected a first level noisier than the last, got times {first.t:g} and {last.t:g}. Fix: exchange them."
        )
    start = 1.0 if first is None else first.t
    if spacing == "time":
        times = uniform_times(steps, start) if last is None else evenly(start, last.t, steps)
        return grid_of_times(schedule, times, time_difference)
    if time_difference:
        raise ValueError(
            f"Expected steps even in time, as time_difference needs, got spacing={spacing!r}. Fix: time_difference=0."
        )
    choose = uniform_log_snrs if spacing == "log_snr" else optimal_log_snrs
    last_time = 1e-3 if last is None else last.t
    return grid_of_log_snrs(schedule, choose(schedule, steps, strength=start, last_time=last_time))
