"""What samplers, guidance and losses see of a network: a `Denoiser`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

from torch import Tensor

from ..process.level import Level, Prediction
from ..process.schedules import NoiseSchedule


class Denoiser(Protocol):
    """`denoise(x, at, to) -> Prediction` for x [batch, ...] at one level.

    A level holds floats while sampling, tensors [batch] while training. `to` is the level that the
    step goes to: a network with a second time (a flow map) looks at it, all others ignore it, and
    None stands for `at`. A denoiser made of others hands it on.
    """

    schedule: NoiseSchedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction: ...


@final
class TransformX0:
    """A denoiser whose clean data goes through a function.

    The noise is read off x again, so that clean data and noise still make up x.

    Args:
        denoise: Any denoiser.
        change: From clean data [batch, ...] to clean data, such as `Clip()` or `Threshold()`.
    """

    def __init__(self, denoise: Denoiser, change: Callable[[Tensor], Tensor]) -> None:
        self.denoise, self.change = denoise, change
        self.schedule = denoise.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        prediction = self.denoise(x, at, to)
        return Prediction.from_x0(self.change(prediction.x0), x, at, prediction.variance)


@final
class StatelessDenoiser:
    """A denoiser made anew for each call: a function of x and the level alone.

    Likelihoods and inversion need one; it never conditions a network on its own estimate.

    Args:
        fresh: Makes a denoiser without memory. Its conditions should be encoded beforehand.
    """

    def __init__(self, fresh: Callable[[], Denoiser]) -> None:
        self.fresh = fresh
        self.schedule = fresh().schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        return self.fresh()(x, at, to)
