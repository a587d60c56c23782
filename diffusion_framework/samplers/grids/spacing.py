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
"""Spacing of sampler steps.

- `time`: even in time.
- `log_snr`: even in log-SNR.
- `optimal`: minimises a bound on a solver's error; see `optimal_log_snrs`.
"""


def spaced_grid(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing = "time",
    *,
    first: Level | None = None,
    last: Level | None = None,
    time_difference: float = 0.0,
) -> Grid:
    """Returns a grid of sampler steps, the last of which leads to the clean end.

    Args:
        schedule: Noise schedule that gives the levels.
        steps: Number of sampler steps, from 1 to 100,000.
        spacing: Spacing of the steps; see `Spacing`.
        first: Level where the first step starts; None starts at t = 1.
        last: Level where the last step starts; None uses the default of the spacing.
        time_difference: Time by which each step goes below the start of the next step, as in
            `grid_of_times`; with spacing 'time' only.

    Raises:
        ValueError: If an option is out of range or unknown, or the levels are in the wrong order.
    """
    check_steps(steps)
    if spacing not in ("time", "log_snr", "optimal"):
        raise ValueError(
            f"Expected spacing to be 'time', 'log_snr' or 'optimal', got {spacing!r}. "
            "Fix: choose one of these three names."
        )
    if first is not None and last is not None and not first.t > last.t:
        raise ValueError(
            f"Expected a first level noisier than the last, got times {first.t:g} and {last.t:g}. "
            "Fix: swap the two levels."
        )
    start = 1.0 if first is None else first.t
    if spacing == "time":
        times = uniform_times(steps, start) if last is None else evenly(start, last.t, steps)
        return grid_of_times(schedule, times, time_difference)
    if time_difference:
        raise ValueError(
            f"Expected spacing='time' with time_difference={time_difference}, got {spacing!r}. "
            "Fix: set time_difference to 0, or the spacing to 'time'."
        )
    choose = uniform_log_snrs if spacing == "log_snr" else optimal_log_snrs
    last_time = 1e-3 if last is None else last.t
    return grid_of_log_snrs(schedule, choose(schedule, steps, strength=start, last_time=last_time))
