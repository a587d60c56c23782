"""Time samplers, which draw the noise levels to train at."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..process.level import check_step_count
from ..process.schedules import NoiseSchedule
from .levels import SampledLevels


class TimeSampler(ABC):
    """Base of time samplers, frozen dataclasses that map uniform numbers to noise levels.

    The memory of earlier losses, if any, is an argument and a result; the sampler holds no state.
    """

    @property
    def fixed_steps(self) -> int | None:
        """Number of process steps, each of length 1 / steps in time; None in continuous time."""
        return None

    def uniform(
        self, batch: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws numbers [batch] uniformly from (0, 1], without 0, where the data has no noise."""
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        return 1 - torch.rand(batch, generator=generator, device=device, dtype=dtype)

    @abstractmethod
    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        """Maps uniform numbers [batch] in (0, 1] to levels by the inverse distribution function.

        Args:
            schedule: Noise schedule of the levels.
            uniform: Result of `uniform`.
            memory: Result of `memory` or `remember`, or None without a memory.
        """

    def memory(self, schedule: NoiseSchedule) -> Tensor | None:
        """Returns the initial memory of losses, or None for time samplers without one."""
        return None

    def remember(self, memory: Tensor, draw: SampledLevels, losses: Tensor) -> Tensor:
        """Returns the memory updated with the losses [batch] of a draw.

        It gathers the losses of all processes, so that the memory is the same on each.
        """
        return memory


@dataclass(frozen=True)
class Uniform(TimeSampler):
    """Times uniform in (0, 1]."""

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        return SampledLevels(schedule.at(uniform))


@dataclass(frozen=True)
class LogNormal(TimeSampler):
    """Levels with normally distributed ln(sigma / alpha) (Karras et al. 2022, table 1).

    Levels beyond an end of the schedule are moved to that end.

    Args:
        mean: Mean of ln(sigma / alpha).
        std: Standard deviation of ln(sigma / alpha), above 0.
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
    """Times with normally distributed logit ln(t / (1 - t)) (Esser et al. 2024, eq. 19).

    Most times lie in the middle of (0, 1).

    Args:
        mean: Mean of the logit; a mean above 0 gives more noise.
        std: Standard deviation of the logit, above 0.
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
    """Steps of a discrete process, drawn uniformly (Ho et al. 2020).

    Process step i, counted from 0, starts at time (i + 1) / steps. A schedule with noise at time 0
    (VE, EDM) has one more step, from time 0 to the clean end.

    Args:
        steps: Number of process steps.

    Raises:
        ValueError: If steps is out of range.
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
    """Process steps drawn by importance sampling (Nichol & Dhariwal 2021, eq. 18).

    The probability of a step is proportional to the root mean square of its recent losses. Each
    loss is divided by the relative probability of its step, which keeps the expectation and reduces
    the variance. Steps are drawn uniformly until each has been drawn `history` times.

    Args:
        steps: Number of process steps.
        history: Number of recent losses kept for each step.
        uniform_share: Share of draws that are uniform, in (0, 1], so that every step keeps being
            drawn.

    Raises:
        ValueError: If an option is out of range.
    """

    steps: int
    history: int = 10
    uniform_share: float = 0.001

    def __post_init__(self) -> None:
        check_step_count(self.steps, "steps of LossAware")
        check_step_count(self.history, "history of LossAware")
        if not 0 < self.uniform_share <= 1:
            raise ValueError(
                f"Expected uniform_share in (0, 1], got {self.uniform_share}. "
                "Fix: set uniform_share=0.001."
            )

    @property
    def fixed_steps(self) -> int:
        return self.steps

    def memory(self, schedule: NoiseSchedule) -> Tensor:
        """Returns an empty ring buffer of squared losses, [steps, 1 + history].

        Column 0 holds the index of the next write; the others hold losses, -1 where empty.
        """
        memory = torch.full((schedule.step_count(self.steps), 1 + self.history), -1.0)
        memory[:, 0] = 0
        return memory

    def probabilities(self, memory: Tensor) -> Tensor:
        """Returns the probability of each step, [steps]; float64 where the device supports it."""
        squares = memory[:, 1:].to(torch.float32 if memory.device.type == "mps" else torch.float64)
        sizes = squares.clamp(min=0).mean(1).sqrt()
        even = torch.full_like(sizes, 1 / len(sizes))
        aware = (1 - self.uniform_share) * sizes / sizes.sum() + self.uniform_share * even
        return torch.where((squares >= 0).all() & (sizes.sum() > 0), aware, even)

    def draw(
        self, schedule: NoiseSchedule, uniform: Tensor, memory: Tensor | None = None
    ) -> SampledLevels:
        if memory is None:
            raise ValueError(
                "Expected a memory for LossAware, got None. Fix: start from memory(schedule)."
            )
        probabilities = self.probabilities(memory)
        edges = probabilities.cumsum(0)
        step = torch.searchsorted(edges, uniform * edges[-1]).clamp(max=len(edges) - 1)
        t = (step + 1 + self.steps - len(edges)) / self.steps
        return SampledLevels(schedule.at(t), 1 / (len(edges) * probabilities[step]), step)

    def remember(self, memory: Tensor, draw: SampledLevels, losses: Tensor) -> Tensor:
        assert draw.step is not None
        step, losses = _all_gather(draw.step), _all_gather(losses)
        step, order = step.sort(stable=True)
        first = torch.searchsorted(step, step)  # index of the first loss of the same step
        rank = torch.arange(len(step), device=step.device) - first
        count = torch.searchsorted(step, step, right=True) - first
        kept = rank >= count - self.history  # the latest losses, if a step has more than `history`
        column = (memory[step, 0].long() + rank) % self.history
        # A spare row takes the losses that are not kept, so that no entry is written twice.
        memory = torch.cat([memory, memory[:1]])
        row = torch.where(kept, step, len(memory) - 1)
        memory[row, 1 + column] = losses[order].to(memory.dtype).square()
        memory[step, 0] = ((memory[step, 0].long() + count) % self.history).to(memory.dtype)
        return memory[:-1]


@dataclass(frozen=True)
class Stratified(TimeSampler):
    """Times drawn by stratified sampling over each batch (Kingma et al. 2021).

    Times spread evenly over the batch reduce the variance of the loss.

    Args:
        times: Time sampler that defines the distribution.
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


def _all_gather(values: Tensor) -> Tensor:
    """Gathers values [batch] of each process to [processes * batch], ordered by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    shares = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(shares, values.contiguous())
    return torch.cat(shares)


def _check_std(times: LogNormal | LogitNormal) -> None:
    if not (math.isfinite(times.mean) and 0 < times.std < math.inf):
        raise ValueError(
            f"Expected a finite mean and a finite std above 0, got {times}. "
            "Fix: set std=1.0, and mean=0.0 if the mean is not finite."
        )
