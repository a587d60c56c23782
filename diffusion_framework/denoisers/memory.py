"""Memory of a trajectory, for networks with self-conditioning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

from torch import Tensor

from ..process.level import Level

_AHEAD = 0.5  # largest extrapolation, as a share of the change between the levels known


@final
@dataclass(frozen=True)
class Feedback:
    """What a network with self-conditioning sees of its earlier estimates.

    In training, the network sees an estimate for the level of the call. In sampling, its last one
    belongs to a noisier level, and is late by a whole step. This error is of first order in the
    step, whatever the order of the sampler. A line through earlier estimates removes it.

    Args:
        factor: Factor of the estimate, in [0, 1]; 0 feeds nothing back, no latents either.
        extrapolates: Whether the estimate is led on to the level of the call.
    """

    factor: float = 1.0
    extrapolates: bool = False


class Recalled(NamedTuple):
    """What a network sees of earlier calls.

    Attributes:
        x0: Estimate of the clean data, [batch, ...]; None if there is none.
        latents: Last latents; None if there are none.
    """

    x0: Tensor | None
    latents: Tensor | None


@final
@dataclass
class Memory:
    """Detached tensors that one trajectory feeds back to the network.

    Attributes:
        feedback: What the network sees of them.
        bounds: Bounds of clean data, or None.
        estimates: Levels with their estimates of the clean data [batch, ...], newest first.
        latents: Last latents; None before the first call.
    """

    feedback: Feedback
    bounds: tuple[float, float] | None
    estimates: tuple[tuple[Level, Tensor], ...] = ()
    latents: Tensor | None = None

    def remember(self, x0: Tensor, at: Level) -> None:
        """Stores the estimate of a call at a level."""
        kept = 2 if self.feedback.extrapolates else 0
        self.estimates = ((at, self._bounded(x0.detach())), *self.estimates[:kept])

    def recalled(self, at: Level) -> Recalled:
        """Returns what the network sees in a call at a level.

        The estimate is extrapolated along the line through the last one and the last but two, in
        the angle between data and noise, by at most half of their change: in even steps, exactly
        one step. So an error that changes its sign from step to step, as the network's answers to
        its own estimates may, grows no faster than without extrapolation. The line through the last
        two triples it.
        """
        if not self.estimates:
            return Recalled(None, self.latents)
        last, factor = self.estimates[0][1], self.feedback.factor
        ahead = _ahead(at, [level for level, _ in self.estimates])
        if ahead:
            last = self._bounded(last.lerp(self.estimates[-1][1], -ahead))
        return Recalled(last if factor == 1 else factor * last, self.latents)

    def _bounded(self, x0: Tensor) -> Tensor:
        return x0 if self.bounds is None else x0.clamp(*self.bounds)


def _ahead(at: Level, known: list[Level]) -> float:
    """Returns how far a level lies beyond three known ones, as a share of what they span.

    It is 0 if fewer are known, and for levels of tensors, which do not follow each other.
    """
    if len(known) < 3 or any(isinstance(level.sigma, Tensor) for level in (at, *known)):
        return 0.0
    now, newest, oldest = (math.atan2(one.sigma, one.alpha) for one in (at, known[0], known[-1]))
    if newest == oldest:
        return 0.0
    return min(max((now - newest) / (newest - oldest), 0.0), _AHEAD)
