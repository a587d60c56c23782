"""`Denoiser`, the interface between networks and samplers, guidance and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

from torch import Tensor

from ..process.level import Level, Prediction
from ..process.schedules import NoiseSchedule


class Denoiser(Protocol):
    """Function `denoise(x, at, to) -> Prediction` of x [batch, ...] at noise level `at`.

    A level holds floats while sampling, and tensors [batch] while training. `to` is the level at
    the end of the step; None stands for `at`. Only a network with a second time (a flow map) uses
    it. A denoiser that wraps another one passes `to` on.
    """

    schedule: NoiseSchedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction: ...


@final
class TransformX0:
    """Denoiser that applies a function to the estimated clean data of another one.

    The noise is computed from x and the new clean data, so that both still add up to x. A jump of a
    network with a second time that ends above the clean data estimates no clean data, and is
    returned as it is.

    Args:
        denoise: Denoiser to wrap.
        change: Function of clean data [batch, ...], such as `Clip()` or `Threshold()`.
    """

    def __init__(self, denoise: Denoiser, change: Callable[[Tensor], Tensor]) -> None:
        self.denoise, self.change = denoise, change
        self.schedule = denoise.schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        prediction = self.denoise(x, at, to)
        if to is not None and to is not at and not to.is_end:
            return prediction
        return Prediction.from_x0(self.change(prediction.x0), x, at, prediction.variance)


@final
class StatelessDenoiser:
    """Denoiser without memory, whose result depends on x and the level alone.

    Likelihoods and inversion need one. It never feeds an estimate back to the network.

    Args:
        fresh: Function that returns a new denoiser for each call. Encode its conditions beforehand.
    """

    def __init__(self, fresh: Callable[[], Denoiser]) -> None:
        self.fresh = fresh
        self.schedule = fresh().schedule

    def __call__(self, x: Tensor, at: Level, to: Level | None = None) -> Prediction:
        return self.fresh()(x, at, to)
