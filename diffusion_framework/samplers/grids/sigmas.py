"""Levels by their noise: log-SNRs, or sigma / alpha, from noisy to clean.

Each list ends at the clean level, +inf or 0, except that of `uniform_angles`.
"""

from __future__ import annotations

import math

from ...process.schedules import NoiseSchedule
from .beta_quantiles import beta_quantiles
from .times import check_steps


def uniform_log_snrs(
    schedule: NoiseSchedule, steps: int, strength: float = 1.0, last_time: float = 1e-3
) -> list[float]:
    """Returns `steps` evenly spaced log-SNRs and +inf (Lu et al. 2022a).

    The log-SNRs span the range between two times of the schedule, both included.

    Args:
        schedule: Noise schedule that gives log-SNR at the two times.
        steps: Number of sampler steps, from 1 to 100,000, including the step to the clean end.
        strength: Time of the first level, in (0, 1], where the schedule has some signal.
        last_time: Time at which the last step starts, in [0, strength), where the schedule has some
            noise.

    Raises:
        ValueError: If an option is out of range, or log-SNR is infinite at one of the times.
    """
    check_steps(steps)
    low, high = log_snr_range(schedule, strength, last_time)
    return [*evenly(low, high, steps), math.inf]


def uniform_angles(schedule: NoiseSchedule, steps: int, last_sigma: float = 1e-3) -> list[float]:
    """Returns `steps + 1` log-SNRs, evenly spaced in the angle atan(sigma / alpha).

    The probability flow turns evenly in this angle. The list has no clean end.

    Args:
        schedule: Noise schedule; its level at t = 1 is the first.
        steps: Number of sampler steps, from 1 to 100,000.
        last_sigma: sigma / alpha of the last level, above 0. The schedule's value at t = 0 is used
            instead if it is larger.

    Raises:
        ValueError: If an option is out of range.
    """
    check_steps(steps)
    if not 0 < last_sigma < math.inf:
        raise ValueError(
            f"Expected last_sigma above 0 and finite, got {last_sigma}. Fix: use the default 1e-3."
        )
    noisiest, last = schedule.at(1.0), min(-2 * math.log(last_sigma), schedule.at(0.0).log_snr)
    start, end = math.atan2(noisiest.sigma, noisiest.alpha), math.atan(math.exp(-last / 2))
    between = [start + (end - start) * i / steps for i in range(1, steps)]
    return [noisiest.log_snr, *(-2 * math.log(math.tan(angle)) for angle in between), last]


def exponential_sigmas(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> list[float]:
    """Returns `steps` sigmas from sigma_max to sigma_min, evenly spaced in ln(sigma), and 0.

    The spacing is also even in log-SNR.

    Args:
        steps: Number of sampler steps, from 1 to 100,000, including the step to 0.
        sigma_min: sigma / alpha where the last step starts, above 0.
        sigma_max: sigma / alpha where the first step starts, above sigma_min.

    Raises:
        ValueError: If an option is out of range.
    """
    _check_sigmas(steps, sigma_min, sigma_max)
    sigmas = [math.exp(x) for x in evenly(math.log(sigma_max), math.log(sigma_min), steps)]
    return _between(sigma_max, sigmas, sigma_min)


def karras_sigmas(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> list[float]:
    """Returns `steps` sigmas from sigma_max to sigma_min, evenly spaced in sigma^(1 / rho), and 0.

    From Karras et al. 2022, eq. 5.

    Args:
        steps: Number of sampler steps, from 1 to 100,000, including the step to 0.
        sigma_min: sigma / alpha where the last step starts, above 0.
        sigma_max: sigma / alpha where the first step starts, above sigma_min.
        rho: Exponent, above 0. Larger values give shorter steps at low noise.

    Raises:
        ValueError: If an option is out of range.
    """
    _check_sigmas(steps, sigma_min, sigma_max)
    if not 0 < rho < math.inf:
        raise ValueError(f"Expected rho above 0 and finite, got {rho}. Fix: use the default 7.")
    # Total decrease of the root, relative to its first value.
    fallen = -math.expm1(math.log(sigma_min / sigma_max) / rho)
    return _between(
        sigma_max, [sigma_max * (1 - x) ** rho for x in evenly(0.0, fallen, steps)], sigma_min
    )


def beta_sigmas(
    steps: int,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    alpha: float = 0.6,
    beta: float = 0.6,
) -> list[float]:
    """Returns `steps` sigmas at quantiles of a beta distribution, and 0 (Lee et al. 2024).

    The first is sigma_max, the last before 0 is sigma_min.

    Args:
        steps: Number of sampler steps, from 1 to 100,000, including the step to 0.
        sigma_min: sigma / alpha where the last step starts, above 0.
        sigma_max: sigma / alpha where the first step starts, above sigma_min.
        alpha: First shape parameter of the distribution, from 0.01 to 1000. Smaller values give
            more steps at low noise.
        beta: Second shape parameter of the distribution, from 0.01 to 1000. Smaller values give
            more steps at high noise.

    Raises:
        ValueError: If an option is out of range.
    """
    _check_sigmas(steps, sigma_min, sigma_max)
    quantiles = beta_quantiles(evenly(1.0, 0.0, steps), alpha, beta)
    return _between(
        sigma_max, [sigma_min + q * (sigma_max - sigma_min) for q in quantiles], sigma_min
    )


def log_snr_range(
    schedule: NoiseSchedule, strength: float, last_time: float
) -> tuple[float, float]:
    """Returns log-SNR at times `strength` and `last_time`, both finite.

    Raises:
        ValueError: If the times are out of order or range, or a log-SNR is infinite.
    """
    if not 0 <= last_time < strength <= 1:
        raise ValueError(
            f"Expected 0 <= last_time < strength <= 1, got {last_time=}, {strength=}. "
            "Fix: use the defaults, 1e-3 and 1."
        )
    low, high = schedule.at(strength).log_snr, schedule.at(last_time).log_snr
    if not math.isfinite(low):
        raise ValueError(
            f"Expected a finite log-SNR at the start, got {low} at {strength=}. "
            "Fix: start below this time, such as at 0.999."
        )
    if not math.isfinite(high):
        raise ValueError(
            f"Expected a finite log-SNR before the last step, got {high} at {last_time=}. "
            "Fix: end above this time, such as at 0.001."
        )
    return low, high


def evenly(first: float, last: float, count: int) -> list[float]:
    """Returns `count` evenly spaced numbers with both ends exact; only `first` if count is 1."""
    values = [first + (last - first) * i / (count - 1) for i in range(count - 1)]
    return [*values, last if values else first]


def _between(first: float, values: list[float], last: float) -> list[float]:
    """Returns the values with both ends exact, and 0."""
    return [first, *values[1:-1], last, 0.0] if len(values) > 1 else [first, 0.0]


def _check_sigmas(steps: int, sigma_min: float, sigma_max: float) -> None:
    check_steps(steps)
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"Expected 0 < sigma_min < sigma_max < inf, got {sigma_min=}, {sigma_max=}. "
            "Fix: use the defaults, which are 0.002 and 80."
        )
