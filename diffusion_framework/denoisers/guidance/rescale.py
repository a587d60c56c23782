"""Rescaled guidance (Lin et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ...process.level import Level, Prediction, expand_to
from ..network import NetworkDenoiser
from .base import Rule
from .modifier import ModifiedRule, Modifier


@final
@dataclass(frozen=True)
class Rescale(Modifier):
    """Guidance whose clean data keeps the standard deviation of the prediction without guidance.

    `share std(D) / std(D_guided) D_guided + (1 - share) D_guided`, for each sample (Lin et al.
    2023, sec. 3.4). It prevents the saturated colours of large scales.

    Args:
        scale: Scale of classifier-free guidance as the inner guidance, instead of `inner`.
        inner: Guidance to rescale; None for classifier-free guidance of `scale`, or of 2 without.
        share: Share of the rescaled data, in [0, 1]; 0 leaves the guidance as it is.

    Raises:
        ValueError: a share out of range, or both a scale and an inner guidance.
    """

    share: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ValueError(
                f"Expected a share in [0, 1], got {self.share}. Fix: take 0.7, as the paper does."
            )

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        inner = self.changed.begin(denoise)
        return _Rescaled(inner, self.share) if self.share else inner


@final
class _Rescaled(ModifiedRule):
    def __init__(self, inner: Rule, share: float) -> None:
        super().__init__(inner)
        self.share = share

    def change(self, plain: Prediction, guided: Prediction, x: Tensor, at: Level) -> Prediction:
        wanted, found = (each.x0.flatten(1).std(1, correction=0) for each in (plain, guided))
        ratio = torch.where(found > 0, wanted / found, 1.0)  # constant data has nothing to rescale
        factor = 1 + self.share * (ratio - 1)
        return Prediction.from_x0(guided.x0 * expand_to(factor, x), x, at, guided.variance)
