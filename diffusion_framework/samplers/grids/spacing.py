"""Grids by the name of their spacing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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
- `optimal`: even in the angle atan(sigma / (0.6 scale alpha)), which suits few steps on any
  schedule. The scale grows with the size of images (see `noise_scale`).
"""


def noise_scale(shape: Sequence[int], *, feedback: bool = False) -> float:
    """Returns the factor of noise levels that suits a model in few steps.

    The noise of neighbouring pixels averages out, so that larger images need more of it (Hoogeboom
    et al. 2023, sec. 3.1). The factor is (side / 8)^0.8, for sides of 8 to 64 pixels: trained
    networks of 8, 28 and 32 pixels did best with 1, 2.7 and 3 to 4. Larger ones were not measured.
    For all but images it is 1.

    A network that sees its own estimates decides at higher levels, because each estimate confirms
    the one before. The factor is then 1.5 times as large: of 1, 1.5 and 2, it did best on networks
    of 28 pixels, and almost as well as 2 on those of 8.

    Args:
        shape: Shape of one sample; [channels, height, width] for images.
        feedback: Whether the network sees its earlier estimates (self-conditioning).
    """
    decided = 1.5 if feedback else 1.0
    if len(shape) != 3:
        return decided
    side = math.sqrt(shape[1] * shape[2])
    return decided * (min(max(side, 8.0), 64.0) / 8) ** 0.8


def spaced_grid(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing = "time",
    *,
    first: NoiseLevel | None = None,
    last: NoiseLevel | None = None,
    scale: float = 1.0,
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
            end with 'time' and sigma / alpha = 0.7 / steps with 'log_snr'. With 'optimal' it is
            `scale` times 3 / steps², or 2 / steps^1.5 from 15 steps on, and at most 1.2 / steps. No
            level is below t = 0.
        scale: Factor of the levels with 'optimal', above 0; see `noise_scale`.
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
        last_sigma = 0.7 / steps if spacing == "log_snr" else _optimal_last(steps, scale)
        end = _default_end(schedule, start, last_sigma)
    if spacing == "log_snr":
        values = _even_in_log_snr(start.log_snr, end.log_snr, steps, jumps=first is None)
    else:
        values = _even_in_angle(start.log_snr, end.log_snr, steps, 0.6 * scale)
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


def _even_in_angle(first: float, last: float, steps: int, middle: float) -> list[float]:
    """Returns log-SNRs even in atan(s / middle), where s = sigma / alpha."""
    start, end = (math.atan(math.exp(min(-value / 2, 700.0)) / middle) for value in (first, last))
    return [-2 * math.log(middle * math.tan(angle)) for angle in evenly(start, end, steps)]


def _optimal_last(steps: int, scale: float) -> float:
    """Returns sigma / alpha where the last step starts.

    From 15 steps on, `Auto` does not lower the order of the last step, which can then be longer.
    """
    return min(scale * (3 / steps**2 if steps < 15 else 2 / steps**1.5), 1.2 / steps)
