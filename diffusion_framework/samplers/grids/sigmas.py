"""Levels by their noise: evenly spaced log-SNR, and sigma / alpha, from noisy to clean; the last is the clean end."""

from __future__ import annotations

import math

from ...process.schedules import NoiseSchedule
from .times import check_steps


def uniform_log_snrs(
    schedule: NoiseSchedule, steps: int, strength: float = 1.0, last_time: float = 1e-3
) -> list[float]:
    """`steps` evenly spaced log-SNRs, between two times of the schedule, and +inf (Lu et al. 2022a).

    Args:
        schedule: Gives log-SNR at the two times.
        steps: Number of steps, at least 1; the last is the one to the clean end.
        strength: Time to start from, in (0, 1], where the schedule has some signal.
        last_time: Time at which the last step starts, below strength and where the schedule has some noise.

    Raises:
        ValueError: an option out of range, or an infinite log-SNR at one of the times.
    """
    check_steps(steps)
    low, high = log_snr_range(schedule, strength, last_time)
    return [*evenly(low, high, steps), math.inf]


def uniform_angles(schedule: NoiseSchedule, steps: int, last_sigma: float = 1e-3) -> list[float]:
    """`steps + 1` log-SNRs, evenly spaced in the angle atan(sigma / alpha), in which the probability flow turns evenly.

    Args:
        schedule: Gives the level to start from, at t = 1.
        steps: Number of steps, at least 1.
        last_sigma: sigma / alpha of the last level, above 0; more where the schedule has more at t = 0.

    Raises:
        ValueError: an option out of range.
    """
    check_steps(steps)
    if not 0 < last_sigma < math.inf:
        raise ValueError(f"last_sigma must be above 0; got {last_sigma}")
    noisiest, last = schedule.at(1.0), min(-2 * math.log(last_sigma), schedule.at(0.0).log_snr)
    start, end = math.atan2(noisiest.sigma, noisiest.alpha), math.atan(math.exp(-last / 2))
    between = [start + (end - start) * i / steps for i in range(1, steps)]
    return [noisiest.log_snr, *(-2 * math.log(math.tan(angle)) for angle in between), last]


def exponential_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> list[float]:
    """`steps` sigmas from sigma_max to sigma_min, evenly spaced in ln(sigma), that is in log-SNR, and 0.

    Args:
        steps: Number of steps, at least 1; the last is the one to 0.
        sigma_min: sigma / alpha where the last step starts, above 0.
        sigma_max: sigma / alpha to start from, above sigma_min.

    Raises:
        ValueError: an option out of range.
    """
    _check_sigmas(steps, sigma_min, sigma_max)
    sigmas = [math.exp(x) for x in evenly(math.log(sigma_max), math.log(sigma_min), steps)]
    return _between(sigma_max, sigmas, sigma_min)


def karras_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """`steps` sigmas from sigma_max to sigma_min, even in their rho-th root, and 0 (Karras et al. 2022, eq. 5).

    Args:
        steps: Number of steps, at least 1; the last is the one to 0.
        sigma_min: sigma / alpha where the last step starts, above 0.
        sigma_max: sigma / alpha to start from, above sigma_min.
        rho: The larger, the shorter the steps at low noise; above 0.

    Raises:
        ValueError: an option out of range.
    """
    _check_sigmas(steps, sigma_min, sigma_max)
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be above 0; got {rho}")
    fallen = -math.expm1(math.log(sigma_min / sigma_max) / rho)  # of the root, in units of the first
    return _between(sigma_max, [sigma_max * (1 - x) ** rho for x in evenly(0.0, fallen, steps)], sigma_min)


def beta_sigmas(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, alpha: float = 0.6, beta: float = 0.6
) -> list[float]:
    """`steps` sigmas from sigma_max to sigma_min, at quantiles of a beta distribution, and 0 (Lee et al. 2024).

    Args:
        steps: Number of steps, at least 1; the last is the one to 0.
        sigma_min: sigma / alpha where the last step starts, above 0.
        sigma_max: sigma / alpha to start from, above sigma_min.
        alpha: Of the distribution, above 0; the smaller, the more steps at low noise.
        beta: Of the distribution, above 0; the smaller, the more steps at high noise.

    Raises:
        ValueError: an option out of range.
    """
    from scipy.special import betaincinv  # takes longer to import than this file

    _check_sigmas(steps, sigma_min, sigma_max)
    if not min(alpha, beta) > 0:
        raise ValueError(f"needs alpha and beta above 0; got alpha={alpha}, beta={beta}")
    quantiles = [float(betaincinv(alpha, beta, x)) for x in evenly(1.0, 0.0, steps)]
    return _between(sigma_max, [sigma_min + q * (sigma_max - sigma_min) for q in quantiles], sigma_min)


def log_snr_range(schedule: NoiseSchedule, strength: float, last_time: float) -> tuple[float, float]:
    """log-SNR at the two times, both finite."""
    if not 0 <= last_time < strength <= 1:
        raise ValueError(f"needs 0 <= last_time < strength <= 1; got last_time={last_time}, strength={strength}")
    low, high = schedule.at(strength).log_snr, schedule.at(last_time).log_snr
    if not math.isfinite(low):
        raise ValueError(f"log-SNR must be finite; got {low} at strength={strength}: start below it, as at 0.999")
    if not math.isfinite(high):
        raise ValueError(f"log-SNR must be finite; got {high} at last_time={last_time}: end above it, as at 0.001")
    return low, high


def evenly(first: float, last: float, count: int) -> list[float]:
    """`count` evenly spaced numbers with both ends exact; the first alone for a count of 1."""
    values = [first + (last - first) * i / (count - 1) for i in range(count - 1)]
    return [*values, last if values else first]


def _between(first: float, values: list[float], last: float) -> list[float]:
    """The values, both ends without rounding, and 0."""
    return [first, *values[1:-1], last, 0.0] if len(values) > 1 else [first, 0.0]


def _check_sigmas(steps: int, sigma_min: float, sigma_max: float) -> None:
    check_steps(steps)
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"needs 0 < sigma_min < sigma_max; got sigma_min={sigma_min}, sigma_max={sigma_max}")
