"""`Walk`: the resolved options of sampling and editing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..conditions.base import as_tensor
from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction
from ..process.schedules import NoiseSchedule
from ..spaces import DataSpace
from .base import Sampler, Snapshot, trajectory
from .grids import Grid, Spacing, partial_grid


@final
@dataclass(frozen=True)
class Walk:
    """A trajectory from noise to data, ready to run once.

    Attributes:
        denoise: Denoiser of this trajectory. It may keep its last estimate.
        fresh: Returns another denoiser with the same conditions and without memory.
        sampler: Sampler that steps through the grid.
        grid: Levels to visit.
        noise: Source of the sampler's noise.
        start: Samples at the first level of the grid, [batch, ...].
        space: Data space that maps x0 to the user's units.
        condition: Values of the conditions by name, in the user's units.
    """

    denoise: Denoiser
    fresh: Callable[[], Denoiser]
    sampler: Sampler
    grid: Grid
    noise: Noise
    start: Tensor
    space: DataSpace
    condition: Mapping[str, Any]

    def __repr__(self) -> str:
        """Returns one line, without the network and the noise."""
        shape, names = [*self.start.shape], ", ".join(self.condition)
        told = f", condition={names}" if names else ""
        return f"Walk({self.sampler}, {self.grid}, start={shape}{told})"

    def decode(self, x: Tensor, at: Level | None = None) -> Tensor:
        """Maps samples to the user's units.

        Args:
            x: Samples at the last level, or an estimate of the clean data, [batch, ...].
            at: Level of x, whose alpha is divided out; None for clean data.
        """
        x0 = x if at is None else x / at.alpha
        return self.space.decode(x0, self.condition)


def checked(snapshots: Iterable[Snapshot]) -> Iterator[Snapshot]:
    """Yields the snapshots and checks that they are finite.

    On a GPU the check runs after the last snapshot, because an earlier one would synchronise the
    device.

    Raises:
        FloatingPointError: If a snapshot holds NaN or infinity.
    """
    times: list[float] = []
    finite: list[Tensor] = []
    for snapshot in snapshots:
        times.append(snapshot.now.t)
        finite.append(torch.isfinite(snapshot.x).all())
        if snapshot.x.device.type == "cpu" and not finite[-1]:
            break
        yield snapshot
    if not finite or finite[-1].is_meta:
        return
    finite_steps = torch.stack(finite).tolist()
    if not all(finite_steps):
        first = finite_steps.index(False)
        raise FloatingPointError(
            f"Expected finite samples, got NaN or infinity in step {first + 1} of sampling, at "
            f"time {times[first]:.3g}. Fix: take an earlier checkpoint if training diverged, or "
            "sample in float32."
        )


def first_noise(noise: Tensor | np.ndarray | None, source: Noise, like: Tensor) -> Tensor:
    """Returns the given noise, or draws it.

    Args:
        noise: Standard normal noise, [batch, ...]; None draws it from `source`.
        source: Source of noise.
        like: Tensor of the expected shape, dtype and device.

    Raises:
        ValueError: If the noise has another shape.
    """
    if noise is None:
        return source(like)
    noise = as_tensor(noise, like.device, f"noise {[*like.shape]}")
    if noise.shape != like.shape:
        raise ValueError(
            f"Expected noise {[*like.shape]}, got {[*noise.shape]}. Fix: give one for each sample."
        )
    return noise.to(like)


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
