"""The sampler interface and the one sampling loop; neither names a sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar, final

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction
from ..process.schedules import NoiseSchedule
from ..storage.config import SavedAsJson
from .grids import Grid, NoiseLevel

State = TypeVar("State")


class Sampler(SavedAsJson, ABC, Generic[State]):
    """A method for stepping from one noise level to the next.

    A sampler is a frozen dataclass whose fields are its options. Anything it keeps between steps is
    in the state that `step` returns. So one object serves any number of runs and threads, and a run
    can be stopped after any step and resumed.

    Attributes:
        adaptive: Whether the sampler chooses its own steps. Its number of network calls then
            varies.
        chooses: Whether the sampler only chooses another one and a grid by the number of steps.
            `diffusion tune` then finds better choices for a trained model.
        default_calls: Number of network calls that serves if the user gives none; None for a
            sampler that needs all steps of the process.
    """

    config_name = "sampler.json"
    adaptive: ClassVar[bool] = False
    chooses: ClassVar[bool] = False
    default_calls: ClassVar[int | None] = None

    def untuned(self) -> Sampler:
        """Returns the sampler without what was tuned for one model; in most cases, it is itself."""
        return self

    def init(self, steps: int) -> State:
        """Returns the state before the first step; None for a sampler without state.

        Args:
            steps: Number of steps of the grid.
        """
        return None  # type: ignore[return-value] # the type of a Sampler[None]

    def grid(
        self,
        schedule: NoiseSchedule,
        steps: int,
        *,
        first: NoiseLevel | None = None,
        last: NoiseLevel | None = None,
        scale: float = 1.0,
    ) -> Grid | None:
        """Returns the steps that suit the sampler, for users who name no spacing.

        Args:
            schedule: Noise schedule that gives the levels.
            steps: Number of steps.
            first: Level where the first step starts; see `spaced_grid`.
            last: Level where the last step starts; see `spaced_grid`.
            scale: Factor of the noise levels that suits the data; see `noise_scale`.

        Returns:
            The grid to the clean end; None stands for steps even in time.
        """
        return None

    @abstractmethod
    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        """Moves x from level `now` to level `to`.

        Args:
            denoise: Denoiser, called as `denoise(x, at, to)`; see `Denoiser`.
            x: Samples at level `now`, [batch, ...]; not modified.
            now: Level of floats the step starts from, with sigma > 0.
            to: Level of floats with less noise.
            state: State from `init` or from the previous step.
            noise: Source of standard normal noise shaped like its argument.

        Returns:
            The samples at level `to`, [batch, ...], and the next state.
        """


@dataclass(frozen=True)
class Snapshot:
    """The state of sampling after one step.

    Attributes:
        index: Index of the step, from 0.
        now: Level the step started from.
        to: Level the step led to.
        x: Samples at level `to`, [batch, ...].
        x0: Clean data of the last prediction in the step, [batch, ...].
    """

    index: int
    now: Level
    to: Level
    x: Tensor
    x0: Tensor


def trajectory(
    sampler: Sampler,
    denoise: Denoiser,
    x: Tensor,
    grid: Sequence[tuple[Level, Level]],
    noise: Noise,
) -> Iterator[Snapshot]:
    """Runs the sampler over the grid and yields a snapshot after each step.

    Args:
        sampler: Sampler to run.
        denoise: Denoiser of this trajectory.
        x: Samples at the first level of the grid, [batch, ...].
        grid: Pairs (now, to) of levels.
        noise: Source of the sampler's noise.
    """
    recorded = RecordingDenoiser(denoise)
    state = sampler.init(len(grid))
    for index, (now, to) in enumerate(grid):
        x, state = sampler.step(recorded, x, now, to, state, noise)
        yield Snapshot(index, now, to, x, recorded.last.x0)


@final
class RecordingDenoiser:
    """A denoiser that keeps its last prediction for snapshots."""

    last: Prediction

    def __init__(self, denoise: Denoiser) -> None:
        self.denoise = denoise
        self.schedule = denoise.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        self.last = self.denoise(x, at, to)
        return self.last
