"""Noise levels that users give as numbers or text, such as the first and the last of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...process.level import Level
from ...process.schedules import NoiseSchedule

NoiseLevel = float | str | Level
"""A noise level: sigma / alpha, text such as 'log_snr=-9', or a `Level`; see `level_of`."""

_LOG_SNRS: dict[str, Callable[[NoiseSchedule, float], float]] = {
    "sigma": lambda schedule, value: -2 * math.log(value) if value > 0 else math.inf,
    "log_snr": lambda schedule, value: value,
    "time": lambda schedule, value: schedule.at(value).log_snr,
}
"""Functions that return the log-SNR of a number, by its unit."""


def level_of(schedule: NoiseSchedule, noise: NoiseLevel, name: str = "level") -> Level:
    """Returns a level of a schedule.

    Args:
        schedule: Noise schedule that gives the level.
        noise: sigma / alpha, the noise level of Karras et al. 2022; text of a unit and a number,
            'sigma=80', 'log_snr=-9' (in nats) or 'time=0.9'; or a `Level`.
        name: Name of the argument, for errors.

    Raises:
        ValueError: If the text has another form, or the level is outside the schedule's range or
            has no noise.
    """
    if isinstance(noise, Level):
        return noise
    unit, _, text = noise.rpartition("=") if isinstance(noise, str) else ("sigma", "", noise)
    try:
        log_snr = _LOG_SNRS[unit.strip() or "sigma"](schedule, float(text))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Expected {name} as sigma / alpha, or as 'sigma=80', 'log_snr=-9' or 'time=0.9', got "
            f"{noise!r:.60}. Fix: write it like one of these."
        ) from error
    low, high = schedule.at(1.0).log_snr, schedule.at(0.0).log_snr
    rounding = 1e-9 * (1 + abs(log_snr))
    if not low - rounding <= log_snr <= high + rounding or log_snr == math.inf:
        ends = " to ".join(f"{math.exp(min(-end / 2, 700.0)):.4g}" for end in (low, high))
        raise ValueError(
            f"Expected {name} with noise and on the schedule, whose sigma / alpha is {ends}, got "
            f"{noise!r:.60}. Fix: choose a level between the two."
        )
    return schedule.at_log_snr(min(max(log_snr, low), high))
