"""From a list of times, log-SNRs or sigmas to a grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ...process.level import Level
from ...process.schedules import NoiseSchedule

Grid = list[tuple[Level, Level]]


def grid_of_times(
    schedule: NoiseSchedule, times: Sequence[float], time_difference: float = 0.0, clean: bool = True
) -> Grid:
    """Pairs of levels at consecutive times. Steps on which the schedule stands still, at clip_min, are left out.

    Args:
        schedule: Gives the level at each time.
        times: Times in [0, 1], falling.
        time_difference: Each step goes this much further down than where the next one starts, but not below 0
            ("asymmetric time intervals", Chen et al. 2023, "Analog bits", sec. 2.4), in units of time.
        clean: End at the clean level: a final time 0 is added if missing, and where the schedule still has noise at
            time 0 (VE, EDM), one more step to `schedule.clean`. Otherwise the grid ends with the last time.

    Raises:
        ValueError: times that do not fall, are out of [0, 1], or too few; a negative time difference.
    """
    times = [*times, 0.0] if clean and times and times[-1] != 0 else list(times)
    _check_count(times, "times")
    if not 0 <= time_difference < math.inf:
        raise ValueError(f"time_difference must not be negative; got {time_difference}")
    for now, to in itertools.pairwise(times):
        if not now > to:
            raise ValueError(f"times must fall, from noisy to clean; got {now} then {to}: reverse or sort them")
    pairs = [(schedule.at(now), schedule.at(max(to - time_difference, 0.0))) for now, to in itertools.pairwise(times)]
    grid = [(now, to) for now, to in pairs if now.log_snr < to.log_snr]
    if clean and not grid[-1][1].is_end:
        grid.append((schedule.at(times[-1]), schedule.clean))
    return grid


def grid_of_log_snrs(schedule: NoiseSchedule, log_snrs: Sequence[float], clean: bool = True) -> Grid:
    """Pairs of levels at consecutive log-SNRs.

    Args:
        schedule: Gives the level at each log-SNR.
        log_snrs: In nats, rising, within the schedule's range; the last may be +inf, the clean level.
        clean: Add a final +inf if missing.

    Raises:
        ValueError: log-SNRs that do not rise, that the schedule does not have, or too few.
    """
    values = [*log_snrs, math.inf] if clean and log_snrs and log_snrs[-1] != math.inf else list(log_snrs)
    _check_count(values, "levels")
    for now, to in itertools.pairwise(values):
        if not now < to:
            raise ValueError(f"log-SNR must rise, from noisy to clean; got {now:g} then {to:g}: reverse or sort them")
    low, high = schedule.at(1.0).log_snr, schedule.at(0.0).log_snr
    for value in values[: -1 if values[-1] == math.inf else None]:
        if not low - 1e-9 * (1 + abs(low)) <= value <= high + 1e-9 * (1 + abs(high)):  # rounding is no error
            raise ValueError(
                f"log-SNR must lie in the schedule's range, {low:.6g} to {high:.6g} (sigma / alpha from "
                f"{_sigma(low):.6g} to {_sigma(high):.6g}); got {value:.6g} (sigma / alpha {_sigma(value):.6g})"
            )
    return list(itertools.pairwise(schedule.at_log_snr(value) for value in values))


def grid_of_sigmas(schedule: NoiseSchedule, sigmas: Sequence[float], clean: bool = True) -> Grid:
    """Pairs of levels at consecutive sigma / alpha.

    Args:
        schedule: Gives the level at each sigma / alpha.
        sigmas: sigma / alpha, falling, within the schedule's range; the last may be 0, the clean level.
        clean: Add a final 0 if missing.

    Raises:
        ValueError: sigmas that are negative, do not fall, that the schedule does not have, or too few.
    """
    for sigma in sigmas:
        if not sigma >= 0:
            raise ValueError(f"sigmas must not be negative; got {sigma}")
    for now, to in itertools.pairwise(sigmas):
        if not now > to:
            raise ValueError(f"sigmas must fall, from noisy to clean; got {now:g} then {to:g}: reverse or sort them")
    return grid_of_log_snrs(schedule, [-2 * math.log(sigma) if sigma else math.inf for sigma in sigmas], clean)


def partial_grid(grid: Grid, strength: float) -> Grid:
    """The steps of a grid that start at time `strength` or below, to change an image in part.

    The image is noised to the first level that is left (SDEdit, Meng et al. 2022). About `strength` of the steps are
    made, while `uniform_times(steps, strength)` makes all of them on the shorter way.

    Args:
        grid: Any grid.
        strength: Time in (0, 1]; 1 keeps the whole grid.

    Raises:
        ValueError: strength out of range, or below the start of the last step.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1]; got {strength}")
    kept = [(now, to) for now, to in grid if now.t <= strength + 1e-9]
    if not kept:
        last = f"; its last step starts at {grid[-1][0].t:g}: take more steps" if grid else ""
        raise ValueError(f"the grid has no step that starts at time strength or below; got {strength}{last}")
    return kept


def _check_count(values: Sequence[float], what: str) -> None:
    if len(values) < 2:
        raise ValueError(f"a grid needs at least two {what}, from noisy to clean; got {list(values)}")


def _sigma(log_snr: float) -> float:
    return math.exp(-log_snr / 2)
