"""Grids by the name of their spacing."""

from __future__ import annotations

import itertools
import math
from typing import Literal

from ...process.level import Level
from ...process.schedules import NoiseSchedule
from .first_last import NoiseLevel, level_of
from .levels import Grid, grid_of_times
from .sigmas import evenly
from .times import check_steps, uniform_times

Spacing = Literal["time", "log_snr", "optimal"]
"""Spacing of sampler steps.

- `time`: even in time.
- `log_snr`: even in log-SNR (Lu et al. 2022a).
- `optimal`: even in the angle atan(sigma / (0.6 alpha)), with the best factor of several on exact
  mixtures. It suits few steps on any schedule.
"""


def spaced_grid(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing = "time",
    *,
    first: NoiseLevel | None = None,
    last: NoiseLevel | None = None,
    time_difference: float = 0.0,
) -> Grid:
    """Returns a grid of sampler steps, the last of which leads to the clean end.

    Args:
        schedule: Noise schedule that gives the levels.
        steps: Number of sampler steps, from 1 to 100,000.
        spacing: Spacing of the steps; see `Spacing`.
        first: Level where the first step starts, as sigma / alpha or as text such as 'log_snr=-9'
            (see `level_of`). None starts at t = 1. With 'log_snr', the step from there leads to
            sigma / alpha = 0.3 steps if that is lower.
        last: Level where the last step starts, given like `first`. None is one step above the clean
            end with 'time', sigma / alpha = 0.7 / steps with 'log_snr', and 3 / steps² with
            'optimal', but not below t = 0.
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
    start = schedule.at(1.0) if first is None else level_of(schedule, first, "first")
    end = None if last is None else level_of(schedule, last, "last")
    _check_ends(start, end, steps)
    if spacing == "time":
        return _even_in_time(schedule, steps, start, end, time_difference)
    if time_difference:
        raise ValueError(
            f"Expected spacing='time' with time_difference={time_difference}, got {spacing!r}. "
            "Fix: set time_difference to 0, or the spacing to 'time'."
        )
    if end is None:
        end = _default_end(schedule, start, 0.7 / steps if spacing == "log_snr" else 3 / steps**2)
    if spacing == "log_snr":
        values = _even_in_log_snr(start.log_snr, end.log_snr, steps, jumps=first is None)
    else:
        values = _even_in_angle(start.log_snr, end.log_snr, steps)
    levels = [start, *(schedule.at_log_snr(value) for value in values[1:-1])]
    levels += [end] if steps > 1 else []
    return Grid(itertools.pairwise([*levels, schedule.clean]))


def _check_ends(start: Level, end: Level | None, steps: int) -> None:
    if end is None:
        return
    if not start.log_snr < end.log_snr:
        raise ValueError(
            "Expected a first level noisier than the last, got times "
            f"{start.t:g} and {end.t:g}. Fix: swap the two levels."
        )
    if steps == 1:
        raise ValueError(
            "Expected at least two steps with a last level, got one, which starts at the first "
            "level. Fix: take more steps, or leave last out."
        )


def _even_in_time(
    schedule: NoiseSchedule, steps: int, start: Level, end: Level | None, time_difference: float
) -> Grid:
    if steps == 1:
        return Grid([(start, schedule.clean)])
    if end is not None:
        times = evenly(start.t, end.t, steps)
    elif schedule.at(0.0).is_end:
        times = uniform_times(steps, start.t)
    else:  # the last step leads from t = 0 to the clean end
        times = evenly(start.t, 0.0, steps)
    return grid_of_times(schedule, times, time_difference)


def _default_end(schedule: NoiseSchedule, start: Level, sigma: float) -> Level:
    """Returns the level of sigma / alpha, but one of the schedule, ten times below start."""
    log_snr = max(-2 * math.log(sigma), start.log_snr + 2 * math.log(10))
    return schedule.at_log_snr(min(log_snr, schedule.at(0.0).log_snr))


def _even_in_log_snr(first: float, last: float, steps: int, jumps: bool) -> list[float]:
    """Returns log-SNRs; if it jumps, or from pure noise, the first step is longer than the others.

    Nothing happens over most of the log-SNRs near pure noise, to which even steps would go.
    """
    noisiest = -2 * math.log(0.3 * steps)
    if steps < 3 or noisiest <= first or not (jumps or math.isinf(first)):
        return evenly(first, last, steps)
    if noisiest >= last:
        noisiest = (max(first, -60.0) + last) / 2
    return [first, *evenly(noisiest, last, steps - 1)]


def _even_in_angle(first: float, last: float, steps: int) -> list[float]:
    start, end = (math.atan(math.exp(min(-value / 2, 700.0)) / 0.6) for value in (first, last))
    return [-2 * math.log(0.6 * math.tan(angle)) for angle in evenly(start, end, steps)]
