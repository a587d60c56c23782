from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, move
from .base import Sampler


@dataclass(frozen=True)
class FlowMap(Sampler[None]):
    """Jumps of a network that knows where each step goes (Boffi et al. 2024).

    It is for models trained with `FlowMapLoss`, in 1 to 8 steps of any spacing.
    """

    default_calls: ClassVar[int | None] = 4

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        return move(denoise(x, now, to), to), None
