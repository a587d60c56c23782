"""Functions that keep estimates of the clean data in range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from .base import Denoiser, TransformX0

KeepInRange = bool | Literal["dynamic"] | Callable[[Tensor], Tensor] | None
"""Choice of how estimates of the clean data are kept in range; see `clipped`."""


@final
@dataclass(frozen=True)
class Clip:
    """Clamps clean data to two bounds.

    Args:
        low: Lower bound.
        high: Upper bound, above `low`.

    Raises:
        ValueError: unless low < high.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Expected low < high, got {self}. Fix: exchange the bounds.")

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.clamp(self.low, self.high)


@final
@dataclass(frozen=True)
class Threshold:
    """Dynamic thresholding (Saharia et al. 2022, sec. 2.3).

    Each sample is clamped to a quantile of its absolute values, then divided by this quantile.
    Quantiles below 1 count as 1, so samples within [-1, 1] do not change. This keeps strongly
    guided samples from saturating.

    Args:
        ratio: Level of the quantile, in [0, 1].
        maximum: Upper bound of the quantile, at least 1.

    Raises:
        ValueError: an option out of range.
    """

    ratio: float = 0.995
    maximum: float = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.ratio <= 1 <= self.maximum):
            raise ValueError(
                f"Expected a ratio in [0, 1] and a maximum of at least 1, got {self}. "
                "Fix: take Threshold(0.995)."
            )

    def __call__(self, x0: Tensor) -> Tensor:
        sizes = x0.abs().flatten(1)
        below, part = divmod(self.ratio * (sizes.shape[1] - 1), 1)
        # much faster than torch.quantile, and without its limit
        top = sizes.topk(sizes.shape[1] - int(below), dim=1).values
        limit = torch.lerp(top[:, -1:], top[:, -2:-1], part) if part else top[:, -1:]
        limit = limit.clamp(1.0, self.maximum).reshape(-1, *(1,) * (x0.ndim - 1))
        return x0.clamp(-limit, limit) / limit


def clipped(denoise: Denoiser, how: KeepInRange, bounds: tuple[float, float] | None) -> Denoiser:
    """Returns a denoiser whose clean data is kept in range.

    Args:
        denoise: Denoiser to wrap.
        how: None clips if `bounds` is given; True clips and requires bounds; False does not clip;
            'dynamic' applies `Threshold()` and requires bounds; a function is applied to clean
            data [batch, ...].
        bounds: Range of the clean data, or None for unbounded data.

    Raises:
        ValueError: another value of `how`, or True or 'dynamic' without bounds.
    """
    if callable(how):
        return TransformX0(denoise, how)
    if how not in (None, True, False, "dynamic"):
        raise ValueError(
            "Expected clip_denoised as True, False, 'dynamic' or a function "
            f"of the clean data, got {how!r}. Fix: set clip_denoised=True."
        )
    if how in (False,) or (how is None and bounds is None):  # 0 and NumPy's False as well
        return denoise
    if bounds is None:
        raise ValueError(
            f"Expected a space with bounds for clip_denoised={how!r}, got one without. "
            "Fix: set clip_denoised=False, or to a function of the clean data."
        )
    return TransformX0(denoise, Threshold() if how == "dynamic" else Clip(*bounds))
