"""Guidance: denoisers made of denoisers."""

from __future__ import annotations

import math

from torch import Tensor

from .denoiser import Denoiser
from .process.level import Level, Prediction


class ClassifierFree:
    """Classifier-free guidance (Ho & Salimans 2022): away from what is denoised without a condition.

    Args:
        denoise: With the condition; a learned variance is this one's.
        unconditional: Without it.
        scale: 1 is `denoise` alone, 0 `unconditional` alone, above 1 guides; `w + 1` of the paper.

    Raises:
        ValueError: scale is not finite.
    """

    def __init__(self, denoise: Denoiser, unconditional: Denoiser, scale: float) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"the scale of guidance must be finite; got {scale}")
        self.denoise, self.unconditional, self.scale = denoise, unconditional, scale
        self.schedule = denoise.schedule

    def __call__(self, x: Tensor, at: Level) -> Prediction:
        given, free = self.denoise(x, at), self.unconditional(x, at)
        shares = ((self.scale, given), (1 - self.scale, free))
        of_x0 = tuple(share * w for share, prediction in shares for w in prediction.x0_weights)
        of_eps = tuple(share * w for share, prediction in shares for w in prediction.eps_weights)
        return Prediction.of((*given.tensors, *free.tensors), of_x0, of_eps, given.variance)
