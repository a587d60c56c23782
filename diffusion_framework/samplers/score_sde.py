from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise
from .base import Sampler
from .langevin import Langevin
from .reverse_diffusion import ReverseDiffusion


@dataclass(frozen=True)
class ScoreSDE(Sampler[Any]):
    """Predictor-corrector sampler of Song et al. 2021b, on any schedule, VE and VP included.

    Langevin dynamics corrects, reverse diffusion predicts, and the last step returns the denoised
    mean. Other predictors of the paper are `ReverseDiffusion("euler_maruyama")` and the ancestral
    `DDPM()` (VE) or `DDPM("large")` (VP).

    Args:
        sampler: Sampler that steps after the correction (the predictor).
        snr: Signal-to-noise ratio of a correction, above 0.
        correct_steps: Corrections before each step, at least 0; each takes one network call.

    Raises:
        ValueError: If an option is out of range.
    """

    sampler: Sampler = field(default_factory=ReverseDiffusion)
    snr: float = 0.16
    correct_steps: int = 1

    def __post_init__(self) -> None:
        _ = self.langevin  # checks the options

    @property
    def langevin(self) -> Langevin:
        """`Langevin` with the same options, which takes the steps."""
        return Langevin(self.sampler, self.snr, self.correct_steps)

    def init(self, steps: int) -> Any:
        return self.langevin.init(steps)

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        return self.langevin.step(denoise, x, now, to, state, noise)
