"""The choice of a grid for a sampler: for steps, for a budget of network calls, or by default."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from ..process.level import Level, Prediction
from ..process.schedules import NoiseSchedule
from .arguments import whole_number
from .base import Sampler, trajectory
from .grids import (
    Grid,
    NoiseLevel,
    Spacing,
    grid_of_times,
    partial_grid,
    respaced_times,
    spaced_grid,
    uniform_times,
)


def make_grid(
    schedule: NoiseSchedule,
    timesteps: int,
    time_difference: float,
    sampler: Sampler | None,
    steps: int | str | None,
    spacing: Spacing | None,
    first: NoiseLevel | None,
    last: NoiseLevel | None,
    scale: float,
) -> Grid:
    """Returns the grid of `GaussianDiffusion.grid`, for a process of some schedule and length.

    Args:
        schedule: Noise schedule that gives the levels.
        timesteps: Number of steps of the process.
        time_difference: Time by which each step goes further.
        sampler: Sampler that will take the steps; None for any.
        steps: Number of steps, respacing string, or None for those of the process.
        spacing: Spacing of the steps; None for that of the sampler.
        first: Level where the first step starts, or None.
        last: Level where the last step starts, or None.
        scale: Factor of the noise levels that suits the data.

    Raises:
        ValueError: If an option is out of range or unknown, or a respacing string comes with
            spacing, first or last.
    """
    chosen = {"spacing": spacing, "first": first, "last": last}
    how: dict[str, Any] = {"first": first, "last": last, "scale": scale}
    given = ", ".join(name for name, value in chosen.items() if value is not None)
    if isinstance(steps, str):
        if given:
            raise ValueError(
                f"Expected a number of steps with {given}, got {steps!r}, which has a spacing "
                "of its own. Fix: leave one of them out."
            )
        return grid_of_times(schedule, respaced_times(steps, timesteps), time_difference)
    count = timesteps if steps is None else whole_number(steps, "steps")
    if steps is None and not given:
        return grid_of_times(schedule, uniform_times(count), time_difference)
    own = None
    if sampler is not None and spacing is None:
        own = sampler.grid(schedule, count, **how)
    if own is None:
        how["time_difference"] = time_difference
        return spaced_grid(schedule, count, spacing or "time", **how)
    if not time_difference:
        return own
    return grid_of_times(schedule, [now.t for now, _ in own], time_difference)


def choose_grid(
    sampler: Sampler,
    schedule: NoiseSchedule,
    make: Callable[..., Grid],
    *,
    spacing: Spacing | None = None,
    steps: int | str | None = None,
    calls: int | None = None,
    grid: Grid | None = None,
    strength: float = 1.0,
) -> Grid:
    """Returns the grid for steps, a budget of network calls, or a given grid.

    At most one of the three may be given. Without any, the sampler decides; see `default_grid`.

    Args:
        sampler: Sampler that steps through the grid.
        schedule: Noise schedule that gives the levels.
        make: Returns the grid for a value of `steps` and of `spacing`.
        spacing: Spacing of the steps; see `GaussianDiffusion.grid`.
        steps: Number of sampler steps or a respacing string; see `GaussianDiffusion.walk`.
        calls: Largest number of network calls.
        grid: Grid to use.
        strength: Time in (0, 1] below which the grid starts; see `partial_grid`.

    Raises:
        ValueError: If several of the three are given, or a grid has gaps and the sampler memory.
    """
    options = {"steps": steps, "calls": calls, "grid": grid}
    if len(given := [name for name, value in options.items() if value is not None]) > 1:
        raise ValueError(
            f"Expected one of steps, calls and grid, got {' and '.join(given)}. "
            "Fix: leave out all but one."
        )
    if calls is not None:
        grid = grid_for_calls(sampler, calls, schedule, partial(make, spacing=spacing))
    elif steps is not None:
        grid = make(steps, spacing=spacing)
    elif grid is None:
        grid = default_grid(sampler, schedule, make, spacing)
    grid = partial_grid(schedule, Grid(grid), strength)
    if not grid.is_connected and sampler.init(len(grid)) is not None:
        raise ValueError(
            "Expected a sampler without memory, such as DDIM or DDPM, for a grid with gaps "
            f"(time_difference), got {sampler}. Fix: set sampler='ddim' or time_difference=0."
        )
    return grid


def default_grid(
    sampler: Sampler, schedule: NoiseSchedule, make: Callable[..., Grid], spacing: Spacing | None
) -> Grid:
    """Returns the grid that suits a sampler if the user gives neither steps nor calls.

    It takes `default_calls` network calls, but no more steps than the process has. Samplers with
    adaptive steps get one step, inside which they choose their own.

    Args:
        sampler: Sampler that steps through the grid.
        schedule: Noise schedule that gives the levels.
        make: Returns the grid for a number of steps and a spacing; without them, that of the
            process.
        spacing: Spacing of the steps; None for the grid that suits the sampler.
    """
    if sampler.adaptive:
        return make(1, spacing=spacing)
    if sampler.default_calls is None:
        return make(None, spacing=spacing)
    process = make(None, spacing=spacing)
    few_steps = partial(make, spacing=spacing)
    few = grid_for_calls(sampler, sampler.default_calls, schedule, few_steps)
    return few if len(few) < len(process) else process


def grid_for_calls(
    sampler: Sampler, calls: int, schedule: NoiseSchedule, make: Callable[[int], Grid]
) -> Grid:
    """Returns the grid with the most steps that needs at most `calls` network calls.

    Calls are counted by running the sampler on numbers, without a network.

    Args:
        sampler: Sampler with a fixed number of calls, so not an adaptive one.
        calls: Largest number of network calls, at least that of one step.
        schedule: Noise schedule that gives the levels.
        make: Returns the grid for a number of steps.

    Raises:
        ValueError: If the sampler is adaptive, or `calls` is too small for one step.
    """
    if sampler.adaptive:
        raise ValueError(
            f"Expected a sampler with a fixed number of network calls, got {sampler}, which "
            "chooses its own steps. Fix: give steps, or set its tolerance."
        )

    def calls_for(steps: int) -> int:
        return count_calls(sampler, schedule, make(steps))

    steps = calls
    while steps >= 1 and (count := calls_for(steps)) > calls:
        steps = min(steps - 1, math.ceil(steps * calls / count))
    if steps < 1:
        raise ValueError(
            f"Expected network calls for at least one step, got {calls=}. Fix: give more."
        )
    while steps < calls and calls_for(steps + 1) <= calls:
        steps += 1
    return make(steps)


def count_calls(sampler: Sampler, schedule: NoiseSchedule, grid: Grid) -> int:
    """Returns the number of denoiser calls of a sampler on a grid."""
    counter = _CallCounter(schedule)
    x = torch.ones(1, 1, dtype=torch.float64, device="cpu")
    for _ in trajectory(sampler, counter, x, grid, torch.ones_like):
        pass
    return counter.calls


@final
class _CallCounter:
    """A denoiser for data that is always 0, which counts its calls."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule, self.calls = schedule, 0

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        self.calls += 1
        return Prediction.from_x0(torch.zeros_like(x), x, at)
