"""The sampler protocol and the only sampling loop. Neither knows any sampler by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar, final

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, Prediction
from ..storage.config import SavedAsJson

State = TypeVar("State")


class Sampler(SavedAsJson, ABC, Generic[State]):
    """How to go from one noise level to the next.

    A sampler is a frozen dataclass whose fields are its options; what it remembers between steps is the state
    it returns.
    So one object serves any number of runs and threads, and a run can be stopped after any step and taken up again.
    """

    config_name = "sampler.json"
    adaptive: ClassVar[bool] = False
    """Whether it chooses steps of its own, so that its number of network calls is not fixed."""

    def init(self, steps: int) -> State:
        """The state before the first of so many steps; None for a sampler that remembers nothing."""
        return None  # type: ignore[return-value] # the type of a Sampler[None]

    @abstractmethod
    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        """x [batch, ...] at level `now` -> x at level `to`, and the next state.

        Args:
            denoise: `denoise(x, at, to) -> Prediction`; see `Denoiser`.
            x: Samples at level `now`. Not changed.
            now: A level of floats with sigma > 0.
            to: A level of floats with less noise.
            state: From `init` or from the step before.
            noise: `noise(x)` gives standard normal noise like x.
        """


@dataclass(frozen=True)
class Snapshot:
    """A sample in progress, after one step.

    Attributes:
        index: Number of the step, from 0.
        now: The level the step started from.
        to: The level it reached.
        x: The samples at level `to`, [batch, ...].
        x0: The clean data as predicted last in the step, [batch, ...].
    """

    index: int
    now: Level
    to: Level
    x: Tensor
    x0: Tensor


def trajectory(
    sampler: Sampler, denoise: Denoiser, x: Tensor, grid: Sequence[tuple[Level, Level]], noise: Noise
) -> Iterator[Snapshot]:
    """Walk the grid with the sampler, from x at the first level; yields after each step."""
    recorded = RecordingDenoiser(denoise)
    state = sampler.init(len(grid))
    for index, (now, to) in enumerate(grid):
        x, state = sampler.step(recorded, x, now, to, state, noise)
        yield Snapshot(index, now, to, x, recorded.last.x0)


@final
class RecordingDenoiser:
    """A denoiser that keeps its last prediction, so that snapshots can show it and samplers need not hand it out."""

    last: Prediction

    def __init__(self, denoise: Denoiser) -> None:
        self.denoise = denoise
        self.schedule = denoise.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        self.last = self.denoise(x, at, to)
        return self.last
