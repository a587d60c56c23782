"""The search for the sampler and the levels of each number of network calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..denoisers import Guided
from ..progress import ProgressBar
from ..samplers import Sampler
from ..samplers.grids import Grid, level_of
from ..samplers.tuned import Tuned
from ..samplers.tuned_file import TunedCalls
from ..sampling import DrawsSamples
from .paths import Paths, rms
from .programme import cheapest_levels
from .refine import refine, size
from .solvers import solvers
from .teacher import Teacher

_SCREENED, _REFINED, _CHECKED = 32, 64, 16  # paths of the first comparison, ...
_NUMBERS = 20_000  # smallest count of numbers in them, for data of few numbers a sample
_TRIALS = 8  # moves of all levels


@dataclass(frozen=True)
class Search:
    """Options of tuning.

    Attributes:
        paths: Number of paths; the second half only measures.
        teacher_calls: Network calls of the teacher for a path.
        guidance: Guidance of the paths, or None.
        last: Level where the last step starts, as sigma / alpha or text; None to search it.
        seed: Seed of the noise.
        batch_size: Number of samples walked together.
        show_progress: Whether to show progress.
    """

    paths: int = 256
    teacher_calls: int = 100
    guidance: Guided | None = None
    last: float | str | None = None
    seed: int = 0
    batch_size: int = 64
    show_progress: bool = True

    def __post_init__(self) -> None:
        if self.paths < 2 or self.batch_size < 1 or self.teacher_calls < 20:
            raise ValueError(
                "Expected at least 2 paths, a batch of 1 and 20 calls of the teacher, got "
                f"{self.paths}, {self.batch_size} and {self.teacher_calls}. Fix: use the defaults."
            )


@dataclass(frozen=True)
class Tuning:
    """Result of tuning.

    Attributes:
        found: Sampler, grid and errors for each number of calls.
        defaults: Grids without tuning, by number of calls.
        teacher_error: RMS distance of the teacher's ends to those of twice as many calls.
        calls: Number of network calls for one sample each that tuning took.
    """

    found: tuple[TunedCalls, ...]
    defaults: Mapping[int, Grid]
    teacher_error: float
    calls: int


def tune(
    model: DrawsSamples,
    calls: Sequence[int],
    options: Search,
    condition: Callable[[range], Mapping[str, Any]] = lambda indices: {},
) -> Tuning:
    """Finds the sampler and the levels with which few network calls come nearest to many.

    The ends of a teacher's paths in many calls are the goal. For each sampler, a dynamic programme
    over the teacher's levels gives grids to start from (GITS, Chen et al. 2024). All are measured,
    and the levels of the best are moved to lessen the distance at the end.

    Args:
        model: Model, whose own sampler is `Auto`.
        calls: Numbers of network calls.
        options: Options of the search.
        condition: Function that returns the conditions of some samples by name.

    Raises:
        ValueError: If the model's own sampler is another one, or a number of calls does not fit.
    """
    if not model.sampler.chooses:
        raise ValueError(
            f"Expected a model whose own sampler is auto, got {model.sampler}. "
            "Fix: sample it as it is, or tune a model whose loss and objective propose no sampler."
        )
    counts = sorted(set(calls))
    if not counts or counts[0] < 2 or counts[-1] > options.teacher_calls // 2:
        raise ValueError(
            f"Expected numbers of calls from 2 to {options.teacher_calls // 2}, half of the "
            f"teacher's, got {counts}. Fix: choose others, such as 5,8,10."
        )
    return _Tuner.begin(model, counts, options, condition).result(counts)


@dataclass(frozen=True)
class _Goal:
    """Paths and where they shall end, [samples, numbers]."""

    paths: Paths
    ends: Tensor

    def errors(self, sampler: Sampler, grid: Grid) -> Tensor:
        return self.paths.ends(sampler, grid) - self.ends

    def first(self, count: int) -> _Goal:
        paths = self.paths.first(count)
        return _Goal(paths, self.ends[: sum(len(batch.noise) for batch in paths.batches)])


@dataclass(frozen=True)
class _Tuner:
    """A search that has walked the teacher."""

    model: DrawsSamples
    options: Search
    counter: _Counter
    teacher: Teacher
    teacher_error: float
    searched: _Goal
    held_out: _Goal
    costs: Sequence[tuple[Sampler, Tensor]]

    @classmethod
    def begin(
        cls,
        model: DrawsSamples,
        counts: Sequence[int],
        options: Search,
        condition: Callable[[range], Mapping[str, Any]],
    ) -> _Tuner:
        """Walks the teacher's paths."""
        tried = solvers(model.space.sigma_data)
        counter = _Counter(_expected_calls(counts, options, len(tried)), options.show_progress)
        half = options.paths // 2
        drawn: dict[str, Any] = {"seed": options.seed, "guidance": options.guidance}
        drawn |= {"condition": condition, "count": counter.add}

        def paths(indices: range) -> Paths:
            return Paths.draw(model, indices, batch_size=min(options.batch_size, few), **drawn)

        few = _paths(_SCREENED, model)
        sampler, schedule = model.sampler.untuned(), model.schedule
        grids = [_grid(sampler, model, many * options.teacher_calls) for many in (1, 2)]
        searching = paths(range(half))
        teacher, ends = Teacher.walk(
            searching, sampler, grids[0], max(12, options.teacher_calls // 4)
        )
        measuring = paths(range(half, options.paths))
        held_out = _Goal(measuring, measuring.ends(sampler, grids[0]))
        check = held_out.first(_CHECKED)
        error = rms(check.errors(sampler, grids[1]))
        costs = [(solver, teacher.costs(solver, schedule)) for solver in tried]
        goal = _Goal(searching, ends)
        return cls(model, options, counter, teacher, error, goal, held_out, costs)

    def result(self, counts: Sequence[int]) -> Tuning:
        sampler = self.model.sampler.untuned()
        defaults = {count: _grid(sampler, self.model, count) for count in counts}
        found = []
        for count in counts:
            tuned = self._best(count, defaults[count])
            before = rms(self.held_out.errors(sampler, defaults[count]))
            after = rms(self.held_out.errors(tuned.sampler, tuned.grid(self.model.schedule)))
            found.append(TunedCalls(tuned, after, before))
        self.counter.finish()
        return Tuning(tuple(found), defaults, self.teacher_error, self.counter.done)

    def _best(self, count: int, default: Grid) -> Tuned:
        """Returns the sampler and the levels for a number of calls."""
        few, more = (self.searched.first(_paths(n, self.model)) for n in (_SCREENED, _REFINED))
        measured = [
            (size(few.errors(one.sampler, one.grid(self.model.schedule))), one)
            for one in self._candidates(count, default)
        ]
        finalists: dict[Sampler, Tuned] = {}  # the best grid of each sampler
        for _, one in sorted(measured, key=lambda pair: pair[0]):
            finalists.setdefault(one.sampler, one)
        refined = [self._refined(one, more) for one in finalists.values()]
        return min(refined, key=lambda pair: pair[1])[0]

    def _candidates(self, count: int, default: Grid) -> Iterator[Tuned]:
        """Yields the grids to start from: the default, and those of the dynamic programme."""
        last = self.options.last
        fixed = [] if last is None else [level_of(self.model.schedule, last, "last").log_snr]
        for sampler, costs in self.costs:
            starts = [[now.log_snr for now, _ in default]]
            for power in (1, 2):
                chosen = cheapest_levels(costs**power, count)
                starts.append([self.teacher.levels[index].log_snr for index in chosen])
            for levels in starts:
                yield Tuned(sampler, _with_last(levels[1:], fixed))

    def _refined(self, tuned: Tuned, goal: _Goal) -> tuple[Tuned, float]:
        fixed = tuned.log_snrs[-1:] if self.options.last is not None else ()
        moved = tuned.log_snrs[: len(tuned.log_snrs) - len(fixed)]

        def errors(log_snrs: Sequence[float]) -> Tensor:
            one = replace(tuned, log_snrs=(*log_snrs, *fixed))
            return goal.errors(one.sampler, one.grid(self.model.schedule))

        first = self.model.schedule.at(1.0).log_snr
        highest = fixed[0] if fixed else self.model.schedule.at(0.0).log_snr
        if not moved:
            return tuned, size(errors(()))
        found, least = refine(moved, (first, highest), errors, _TRIALS)
        return replace(tuned, log_snrs=(*found, *fixed)), least


class _Counter:
    """Counts network calls and shows the progress."""

    def __init__(self, expected: int, shown: bool) -> None:
        self.done, self.expected = 0, expected
        self._bar = ProgressBar(1000, "tuning", shown)

    def add(self, calls: int) -> None:
        self.done += calls
        self._bar.update_to(min(self.done / self.expected, 0.999))

    def finish(self) -> None:
        self._bar.update_to(1.0)


def _paths(count: int, model: DrawsSamples) -> int:
    """Returns a number of paths of at least this count, with enough numbers to compare."""
    return max(count, _NUMBERS // math.prod(model.sample_shape))


def _grid(sampler: Sampler, model: DrawsSamples, steps: int) -> Grid:
    return model.grid(steps, sampler=sampler)


def _with_last(log_snrs: Sequence[float], last: Sequence[float]) -> tuple[float, ...]:
    """Returns the log-SNRs with a last one put in place of theirs, shrunk to stay below it."""
    if not last or not log_snrs:
        return tuple(log_snrs)
    excess = max(log_snrs[-1] - last[0], 0.0)
    return (*(value - excess for value in log_snrs[:-1]), *last)


def _expected_calls(counts: Sequence[int], options: Search, tried: int) -> int:
    """Returns about how many network calls for one sample each tuning takes."""
    half = options.paths // 2
    teacher = (2 * half + 2 * min(_SCREENED, half)) * options.teacher_calls
    refined = min(_REFINED, half) * tried
    each = (2 * half + 3 * tried * min(_SCREENED, half) + refined * (_TRIALS + 1) for _ in counts)
    moved = (refined * (count - 1) * count for count in counts)
    return teacher + sum(n * count for n, count in zip(each, counts, strict=True)) + sum(moved)
