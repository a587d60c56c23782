"""Grids of a schedule from lists of times, log-SNRs or sigmas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Real
from typing import SupportsIndex, final, overload

from ...parts.counting import counted
from ...process.level import Level
from ...process.schedules import NoiseSchedule


@final
class Grid(tuple[tuple[Level, Level], ...]):
    """Pairs (now, to) of levels of floats, one for each sampler step, from noisy to clean."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[Level, Level]: ...
    @overload
    def __getitem__(self, index: slice) -> Grid: ...
    def __getitem__(self, index: SupportsIndex | slice) -> tuple[Level, Level] | Grid:
        if isinstance(index, slice):
            return Grid(super().__getitem__(index))
        return super().__getitem__(index)

    def __repr__(self) -> str:
        """Returns one line: the number of steps, and the log-SNR of both ends."""
        ends = f": log_snr {self.start.log_snr:.4g} to {self.end.log_snr:.4g}" if self else ""
        return f"Grid({counted(len(self), 'step')}{ends})"

    @property
    def start(self) -> Level:
        """Level where the first step starts."""
        return self[0][0]

    @property
    def end(self) -> Level:
        """Level where the last step ends."""
        return self[-1][1]

    @property
    def is_connected(self) -> bool:
        """Whether each step starts at the level where the previous step ended."""
        pairs = ((end.log_snr, start.log_snr) for (_, end), (start, _) in itertools.pairwise(self))
        return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in pairs)


def grid_of_times(
    schedule: NoiseSchedule,
    times: Sequence[float],
    time_difference: float = 0.0,
    clean: bool = True,
) -> Grid:
    """Returns the grid of consecutive times.

    Steps over which the schedule is constant, at clip_min, are left out.

    Args:
        schedule: Noise schedule that gives the level at each time.
        times: Falling times in [0, 1].
        time_difference: Time by which each step goes below the start of the next step, at least 0;
            no step goes below time 0. From "asymmetric time intervals" (Chen et al. 2023, "Analog
            bits", sec. 2.4).
        clean: Whether to end at the clean level. If so, a final time 0 is added if missing. A
            schedule with noise at time 0 (VE, EDM) gets one more step, to `schedule.clean`.
            Otherwise the grid ends at the last time.

    Raises:
        ValueError: If times do not fall, lie outside [0, 1] or are fewer than two, or if
            `time_difference` is negative.
    """
    times = [*times, 0.0] if clean and times and times[-1] != 0 else list(times)
    _check_count(times, "times")
    if not 0 <= time_difference < math.inf:
        raise ValueError(
            f"Expected time_difference of at least 0, got {time_difference}. Fix: use 0 for none."
        )
    for now, to in itertools.pairwise(times):
        if not now > to:
            raise ValueError(
                f"Expected falling times, from noisy to clean, got {now} then {to}. "
                "Fix: reverse the list, or sort it in falling order."
            )
    starts = [schedule.at(time) for time in times]
    ends = starts
    if time_difference:
        ends = [schedule.at(max(time - time_difference, 0.0)) for time in times]
    pairs = zip(starts[:-1], ends[1:], strict=True)
    grid = [(now, to) for now, to in pairs if now.log_snr < to.log_snr]
    if clean and not grid[-1][1].is_end:
        grid.append((starts[-1], schedule.clean))
    return Grid(grid)


def grid_of_log_snrs(
    schedule: NoiseSchedule, log_snrs: Sequence[float], clean: bool = True
) -> Grid:
    """Returns the grid of consecutive log-SNRs.

    Args:
        schedule: Noise schedule that gives the level at each log-SNR.
        log_snrs: Rising log-SNRs in nats, within the schedule's range. The last may be +inf, the
            clean level.
        clean: Whether to add a final +inf if missing.

    Raises:
        ValueError: If log-SNRs do not rise, lie outside the schedule's range or are fewer than two.
    """
    values = (
        [*log_snrs, math.inf] if clean and log_snrs and log_snrs[-1] != math.inf else list(log_snrs)
    )
    _check_count(values, "levels")
    for now, to in itertools.pairwise(values):
        if not now < to:
            raise ValueError(
                f"Expected rising log-SNR, from noisy to clean, got {now:g} then {to:g}. "
                "Fix: reverse the list, or sort it."
            )
    low, high = schedule.at(1.0).log_snr, schedule.at(0.0).log_snr
    for value in values[: -1 if values[-1] == math.inf else None]:
        # Rounding at the ends is tolerated.
        if not low - 1e-9 * (1 + abs(low)) <= value <= high + 1e-9 * (1 + abs(high)):
            raise ValueError(
                f"Expected log-SNR in the schedule's range, {low:.6g} to {high:.6g} "
                f"(sigma / alpha from {_sigma(low):.6g} to {_sigma(high):.6g}), "
                f"got {value:.6g} (sigma / alpha {_sigma(value):.6g}). Fix: move it into the range."
            )
    return Grid(itertools.pairwise(schedule.at_log_snr(value) for value in values))


def grid_of_sigmas(schedule: NoiseSchedule, sigmas: Sequence[float], clean: bool = True) -> Grid:
    """Returns the grid of consecutive sigma / alpha.

    Args:
        schedule: Noise schedule that gives the level at each sigma / alpha.
        sigmas: Falling sigma / alpha, within the schedule's range. The last may be 0, the clean
            level.
        clean: Whether to add a final 0 if missing.

    Raises:
        ValueError: If sigmas are negative, do not fall, lie outside the schedule's range or are
            fewer than two.
    """
    for sigma in sigmas:
        if not sigma >= 0:
            raise ValueError(f"Expected sigmas of at least 0, got {sigma}. Fix: remove it.")
    for now, to in itertools.pairwise(sigmas):
        if not now > to:
            raise ValueError(
                f"Expected falling sigmas, from noisy to clean, got {now:g} then {to:g}. "
                "Fix: reverse the list, or sort it."
            )
    return grid_of_log_snrs(
        schedule, [-2 * math.log(sigma) if sigma else math.inf for sigma in sigmas], clean
    )


def partial_grid(schedule: NoiseSchedule, grid: Grid, strength: float) -> Grid:
    """Returns the steps of a grid that start at time `strength` or below, to edit an image.

    The image is noised to the first remaining level (SDEdit, Meng et al. 2022). About a share of
    `strength` of the steps remains. If none of them starts above time 0, the step before is cut to
    start at `strength`. `uniform_times(steps, strength)` instead takes all `steps` over the shorter
    range.

    Args:
        schedule: Noise schedule of the grid.
        grid: Any grid.
        strength: Time in (0, 1]; 1 keeps the whole grid.

    Raises:
        ValueError: If `strength` is out of range, or the grid is empty or ends above it.
    """
    if not isinstance(strength, Real) or not 0 < strength <= 1:
        raise ValueError(
            f"Expected strength in (0, 1], got {strength!r:.60}. Fix: use 1 for the whole grid."
        )
    remaining = [(now, to) for now, to in grid if now.t <= strength + 1e-9]
    if any(now.t > 0 for now, _ in remaining):
        return Grid(remaining)
    cut = [(schedule.at(strength), to) for now, to in grid if to.t < strength < now.t][-1:]
    if not cut and not remaining:
        last = f" and a grid that ends at {grid[-1][1].t:g}" if grid else " and an empty grid"
        raise ValueError(
            f"Expected a grid that ends below time strength, got {strength=}{last}. "
            "Fix: give a grid down to time 0, or raise strength."
        )
    return Grid([*cut, *remaining])


def _check_count(values: Sequence[float], name: str) -> None:
    if len(values) < 2:
        raise ValueError(
            f"Expected at least two {name}, from noisy to clean, got {list(values)}. Fix: add some."
        )


def _sigma(log_snr: float) -> float:
    return math.exp(-log_snr / 2)
