from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, ancestral_std, move
from .base import Sampler


@dataclass(frozen=True)
class DDIM(Sampler[None]):
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16).

    Args:
        eta: Share of fresh noise, in [0, 1]. 0 is deterministic, 1 is DDPM with its small variance.

    Raises:
        ValueError: If `eta` is out of range.
    """

    eta: float = 0.0

    default_calls: ClassVar[int | None] = 50

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(
                f"Expected eta in [0, 1], from deterministic to DDPM, got {self.eta}. "
                "Fix: use 0 for deterministic sampling."
            )

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        tau = self.eta * ancestral_std(now, to)
        return move(denoise(x, now), to, tau, noise(x) if tau else None), None
