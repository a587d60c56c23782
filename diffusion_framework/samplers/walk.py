"""`Walk`: everything that sampling and editing need, resolved once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction
from ..process.schedules import NoiseSchedule
from ..spaces import DataSpace
from .base import Sampler, Snapshot, trajectory
from .grids import Grid, partial_grid


@final
@dataclass(frozen=True)
class Walk:
    """A way from noise to data, ready to be walked once.

    Attributes:
        denoise: The denoiser of this trajectory; it may remember its last estimate.
        fresh: Makes another denoiser that is told the same and remembers nothing yet.
        sampler: How to go from one level to the next.
        grid: The levels to visit.
        noise: Where the sampler's noise comes from.
        start: x [batch, ...] at the first level of the grid.
        space: Maps x0 to the user's units.
        condition: Values of the conditions by name, as the user gave them.
    """

    denoise: Denoiser
    fresh: Callable[[], Denoiser]
    sampler: Sampler
    grid: Grid
    noise: Noise
    start: Tensor
    space: DataSpace
    condition: Mapping[str, Any]

    def decode(self, x: Tensor, at: Level | None = None) -> Tensor:
        """Returns x [batch, ...] in the user's units.

        Args:
            x: Samples at the last level, or an estimate of the clean data.
            at: The level of x, whose alpha is divided out; None for clean data.
        """
        x0 = x if at is None else x / at.alpha
        return self.space.decode(x0, self.condition)


def checked(snapshots: Iterable[Snapshot]) -> Iterator[Snapshot]:
    """The same snapshots; raises FloatingPointError for one that is not finite.

    On a GPU it raises only after the last one, since asking before would wait for the device.
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
    good = torch.stack(finite).tolist()
    if not all(good):
        first = good.index(False)
        raise FloatingPointError(
            f"Expected finite samples, got NaN or infinity in step {first + 1} of sampling, at "
            f"time "
            f"{times[first]:.3g}. Fix: take an earlier checkpoint if training diverged, or sample "
            f"in float32."
        )


def choose_grid(
    sampler: Sampler,
    schedule: NoiseSchedule,
    make: Callable[[int | str | None], Grid],
    *,
    steps: int | str | None = None,
    calls: int | None = None,
    grid: Grid | None = None,
    strength: float = 1.0,
) -> Grid:
    """The grid for options of which one at most is given: steps, a budget of calls, or a grid.

    Args:
        sampler: What walks the grid.
        schedule: Gives the levels.
        make: Gives the grid for a value of steps.
        steps: See `GaussianDiffusion.walk`, like the rest.

    Raises:
        ValueError: several of the three; steps that do not join for a sampler with a memory.
    """
    options = {"steps": steps, "calls": calls, "grid": grid}
    if len(given := [name for name, value in options.items() if value is not None]) > 1:
        raise ValueError(
            f"Expected one of steps, calls and grid, got {' and '.join(given)}. Fix: leave out all "
            f"but one."
        )
    if calls is not None:
        grid = grid_for_calls(sampler, calls, schedule, make)
    grid = partial_grid(make(steps) if grid is None else grid, strength)
    if not _joins(grid) and sampler.init(len(grid)) is not None:
        raise ValueError(
            "Expected a sampler without memory, as DDIM and DDPM, for steps that do not join "
            "(time_difference), "
            f"got {sampler}. Fix: sampler='ddim', or time_difference=0."
        )
    return grid


def grid_for_calls(
    sampler: Sampler, calls: int, schedule: NoiseSchedule, make: Callable[[int], Grid]
) -> Grid:
    """The grid of most steps that a sampler walks within a budget of network calls.

    Calls are counted by walking with numbers in place of a network.

    Args:
        sampler: Any sampler but an adaptive one.
        calls: The budget.
        schedule: Gives the levels.
        make: Gives the grid of a number of steps.

    Raises:
        ValueError: an adaptive sampler, or a budget too small for one step.
    """
    if sampler.adaptive:
        raise ValueError(
            f"Expected a sampler with a fixed number of network calls, got {sampler}, which "
            f"chooses "
            "its own steps. Fix: give steps, or set its tolerance."
        )

    def needed(steps: int) -> int:
        return count_calls(sampler, schedule, make(steps))

    steps = calls
    while steps >= 1 and (count := needed(steps)) > calls:
        steps = min(steps - 1, math.ceil(steps * calls / count))
    if steps < 1:
        raise ValueError(
            f"Expected network calls for at least one step, got {calls=}. Fix: give more."
        )
    while steps < calls and needed(steps + 1) <= calls:
        steps += 1
    return make(steps)


def _joins(grid: Grid) -> bool:
    """Whether each step starts where the step before ended."""
    pairs = ((reached.log_snr, now.log_snr) for (_, reached), (now, _) in itertools.pairwise(grid))
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in pairs)


def count_calls(sampler: Sampler, schedule: NoiseSchedule, grid: Grid) -> int:
    """How often a sampler asks the denoiser on its way through a grid."""
    counter = _CallCounter(schedule)
    x = torch.ones(1, 1, dtype=torch.float64, device="cpu")
    for _ in trajectory(sampler, counter, x, grid, torch.ones_like):
        pass
    return counter.calls


@final
class _CallCounter:
    """A denoiser for data that is always 0."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule, self.calls = schedule, 0

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        self.calls += 1
        return Prediction.from_x0(torch.zeros_like(x), x, at)
