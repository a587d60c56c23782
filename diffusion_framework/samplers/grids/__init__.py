"""Grids: the sequence of (now, to) levels that a sampler visits.

Grids are computed once, in float64, as Python floats. Functions such as `karras_sigmas` list times,
log-SNRs or sigmas from noisy to clean. `grid_of_times`, `grid_of_log_snrs` and `grid_of_sigmas`
turn such a list, or a custom one, into the grid of a schedule:

>>> grid_of_times(schedule, spaced_times(50, "trailing"))
>>> grid_of_sigmas(schedule, karras_sigmas(18, sigma_max=14.6))
>>> grid_of_log_snrs(schedule, optimal_log_snrs(schedule, 10))

Here sigma means sigma / alpha, the noise level of Karras et al. 2022.
"""

from .first_last import NoiseLevel, level_of
from .levels import Grid, grid_of_log_snrs, grid_of_sigmas, grid_of_times, partial_grid
from .optimal import optimal_log_snrs
from .sigmas import beta_sigmas, exponential_sigmas, karras_sigmas, uniform_angles, uniform_log_snrs
from .spacing import Spacing, noise_scale, spaced_grid
from .times import distilled_times, respaced_times, spaced_times, times_of_steps, uniform_times

__all__ = [
    "Grid",
    "NoiseLevel",
    "Spacing",
    "beta_sigmas",
    "distilled_times",
    "exponential_sigmas",
    "grid_of_log_snrs",
    "grid_of_sigmas",
    "grid_of_times",
    "karras_sigmas",
    "level_of",
    "noise_scale",
    "optimal_log_snrs",
    "partial_grid",
    "respaced_times",
    "spaced_grid",
    "spaced_times",
    "times_of_steps",
    "uniform_angles",
    "uniform_log_snrs",
    "uniform_times",
]
