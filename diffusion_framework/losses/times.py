"""The noise levels that training looks at, and how often."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..process.level import Level, check_step_count
from ..process.schedules import NoiseSchedule


@dataclass(frozen=True)
class SampledLevels:
    """What a step of training looks at.

    Attributes:
        at: Levels of tensors [batch].
        weight: [batch], of each loss, so that the expectation is that of uniform steps; None for 1.
        step: [batch], the numbers of the steps, for times that remember losses.
    """

    at: Level
    weight: Tensor | None = None
    step: Tensor | None = None


class TimeSampler(ABC):
    """A frozen dataclass that turns uniform numbers into noise levels.

    What it remembers goes in and comes out.
    """

    @property
    def fixed_steps(self) -> int | None:
        """Steps of the process, each 1 / steps of time, if the levels are those of one.

        None in continuous time.
        """
        return None

    def uniform(
        self, batch: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """[batch] numbers in (0, 1], each uniform: never exactly 0, where there is no noise to
        learn from.
        """
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        return 1 - torch.rand(batch, generator=generator, device=device, dtype=dtype)

    @abstractmethod
    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        """The levels for numbers [batch] in (0, 1]: the inverse of the distribution function."""

    def memory(self, schedule: NoiseSchedule) -> Tensor | None:
        """What is remembered before the first step; None for times that remember nothing."""
        return None

    def remember(self, memory: Tensor, draw: SampledLevels, losses: Tensor) -> Tensor:
        """The memory after these losses [batch] of a draw, the same on all processes."""
        return memory


@dataclass(frozen=True)
class Uniform(TimeSampler):
    """Uniform in time."""

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        return SampledLevels(schedule.at(uniform))


@dataclass(frozen=True)
class LogNormal(TimeSampler):
    """ln(sigma / alpha) is normal, cut off at the schedule's ends (Karras et al. 2022, table 1).

    Args:
        mean: Of ln(sigma / alpha).
        std: Of the same, above 0.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _check_std(self)

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        low, high = schedule.at(1.0).log_snr, schedule.at(0.0).log_snr
        return SampledLevels(
            schedule.at_log_snr((-2 * _normal(uniform, self.mean, self.std)).clamp(low, high))
        )


@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """ln(t / (1 - t)) is normal: most of the time is spent in the middle (Esser et al. 2024, eq.
    19).

    Args:
        mean: Of the logit; above 0 for more noise.
        std: Of the logit, above 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_std(self)

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        return SampledLevels(schedule.at(torch.sigmoid(_normal(uniform, self.mean, self.std))))


@dataclass(frozen=True)
class Steps(TimeSampler):
    """The steps of a discrete process, uniformly (Ho et al. 2020).

    A schedule with noise at time 0 (VE, EDM) has one step more, from there to the clean end.

    Args:
        steps: Step i of them, from 0, starts at time (i + 1) / steps.
    """

    steps: int

    def __post_init__(self) -> None:
        check_step_count(self.steps, "steps of Steps")

    @property
    def fixed_steps(self) -> int:
        return self.steps

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        count = schedule.step_count(self.steps)
        step = (uniform * count).ceil() - 1
        return SampledLevels(schedule.at((step + 1 + self.steps - count) / self.steps))


@dataclass(frozen=True)
class LossAware(TimeSampler):
    """Steps in proportion to the root mean square of their recent losses (Nichol & Dhariwal 2021,
    eq. 18).

    A loss is divided by how often its step comes, so that the expectation stays and its variance
    falls. Uniform until every step has been seen `history` times.

    Args:
        steps: As for `Steps`.
        history: Losses of each step that are remembered.
        uniform_share: Share of all draws that are uniform, in (0, 1], so that no step is forgotten.
    """

    steps: int
    history: int = 10
    uniform_share: float = 0.001

    def __post_init__(self) -> None:
        check_step_count(self.steps, "steps of LossAware")
        check_step_count(self.history, "history of LossAware")
        if not 0 < self.uniform_share <= 1:
            raise ValueError(f"uniform_share must lie in (0, 1]; got {self.uniform_share}")

    @property
    def fixed_steps(self) -> int:
        return self.steps

    def memory(self, schedule: NoiseSchedule) -> Tensor:
        """[steps, 1 + history]: the place of the next loss, and the last squared losses, -1 where
        there is none yet.
        """
        memory = torch.full((schedule.step_count(self.steps), 1 + self.history), -1.0)
        memory[:, 0] = 0
        return memory

    def probabilities(self, memory: Tensor) -> Tensor:
        """[steps], how often each comes; float64 where the device has it."""
        squares = memory[:, 1:].to(torch.float32 if memory.device.type == "mps" else torch.float64)
        sizes = squares.clamp(min=0).mean(1).sqrt()
        even = torch.full_like(sizes, 1 / len(sizes))
        aware = (1 - self.uniform_share) * sizes / sizes.sum() + self.uniform_share * even
        return torch.where((squares >= 0).all() & (sizes.sum() > 0), aware, even)

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        if memory is None:
            raise ValueError("LossAware needs its memory; start from memory(schedule)")
        probabilities = self.probabilities(memory)
        edges = probabilities.cumsum(0)
        step = torch.searchsorted(edges, uniform * edges[-1]).clamp(max=len(edges) - 1)
        t = (step + 1 + self.steps - len(edges)) / self.steps
        return SampledLevels(schedule.at(t), 1 / (len(edges) * probabilities[step]), step)

    def remember(self, memory: Tensor, draw: SampledLevels, losses: Tensor) -> Tensor:
        assert draw.step is not None
        step, losses = _of_all_processes(draw.step), _of_all_processes(losses)
        step, order = step.sort(stable=True)
        first = torch.searchsorted(step, step)  # where the losses of the same step begin
        rank = torch.arange(len(step), device=step.device) - first
        count = torch.searchsorted(step, step, right=True) - first
        kept = rank >= count - self.history  # of more losses than places, the last ones
        place = (memory[step, 0].long() + rank) % self.history
        memory = torch.cat(
            [memory, memory[:1]]
        )  # a row for those not kept: every place is written once
        row = torch.where(kept, step, len(memory) - 1)
        memory[row, 1 + place] = losses[order].to(memory.dtype).square()
        memory[step, 0] = ((memory[step, 0].long() + count) % self.history).to(memory.dtype)
        return memory[:-1]


@dataclass(frozen=True)
class Stratified(TimeSampler):
    """Other times, evenly spread over each batch, so that less of the loss's variance is theirs
    (Kingma et al. 2021).

    Args:
        times: How often each level comes.
    """

    times: TimeSampler = field(default_factory=Uniform)

    @property
    def fixed_steps(self) -> int | None:
        return self.times.fixed_steps

    def uniform(
        self, batch: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        first = super().uniform(1, device, generator)
        return 1 - (first + torch.arange(batch, device=device) / batch) % 1

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        return self.times.draw(schedule, uniform, memory)

    def memory(self, schedule: NoiseSchedule) -> Tensor | None:
        return self.times.memory(schedule)

    def remember(self, memory: Tensor, draw: SampledLevels, losses: Tensor) -> Tensor:
        return self.times.remember(memory, draw, losses)


def _normal(uniform: Tensor, mean: float, std: float) -> Tensor:
    below_one = 1 - torch.finfo(uniform.dtype).eps / 2
    return mean + std * torch.special.ndtri(uniform.clamp(max=below_one))


def _of_all_processes(values: Tensor) -> Tensor:
    """Values [batch] of this process -> [processes * batch] of all of them, in the same order
    everywhere.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    shares = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(shares, values.contiguous())
    return torch.cat(shares)


def _check_std(times: LogNormal | LogitNormal) -> None:
    if not (math.isfinite(times.mean) and 0 < times.std < math.inf):
        raise ValueError(f"times need a finite mean and std > 0; got {times}")
