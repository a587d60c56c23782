from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, forward_std, move
from .base import Sampler
from .ddpm import DDPM


@dataclass(frozen=True)
class ReverseDiffusion(Sampler[None]):
    """One step of the reverse SDE, discretised as the forward one (Song et al. 2021, sec. 4.1, app. E).

    The last step, to sigma = 0, gives the denoised mean.

    Args:
        discretisation: `steps` mirrors the exact forward step, `euler_maruyama` the SDE's drift and diffusion at `now`.
    """

    discretisation: Literal["steps", "euler_maruyama"] = "steps"

    def __post_init__(self) -> None:
        if self.discretisation not in ("steps", "euler_maruyama"):
            raise ValueError(f"discretisation must be steps or euler_maruyama; got {self.discretisation!r}")

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        prediction = denoise(x, now)
        if to.is_end:
            return move(prediction, to), None
        if self.discretisation == "steps" or now.alpha == 0:  # where the drift is infinite
            kept, std = 2 - now.alpha / to.alpha, forward_std(now, to)
        else:
            kept, std = 1 - math.log(now.alpha / to.alpha), now.sigma * math.sqrt(to.log_snr - now.log_snr)
        mean = torch.add(x * kept, prediction.eps, alpha=-(std**2) / now.sigma)
        return mean.add_(noise(x), alpha=std), None


@dataclass(frozen=True)
class Langevin(Sampler[Any]):
    """Corrects x by Langevin dynamics before each step of any sampler (Song et al. 2021, Alg. 4 and 5).

    The size of a correction is set for each sample by itself, so that it does not depend on the rest of the batch.
    Corrections raise the variance, by snr² of it where there are many: they pay where the predictor errs by more.

    Args:
        sampler: What steps after the correction.
        snr: Signal-to-noise ratio of a correction, above 0.
        correct_steps: Corrections before each step; one network call each.
    """

    sampler: Sampler = field(default_factory=DDPM)
    snr: float = 0.16
    correct_steps: int = 1

    def __post_init__(self) -> None:
        if self.snr <= 0 or self.correct_steps < 0:
            raise ValueError(f"Langevin needs snr > 0 and correct_steps >= 0; got {self.snr}, {self.correct_steps}")

    def init(self, steps: int) -> Any:
        return self.sampler.init(steps)

    def step(self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: Any, noise: Noise) -> tuple[Tensor, Any]:
        for _ in range(self.correct_steps):
            score, z = -denoise(x, now).eps / now.sigma, noise(x)
            norms = [v.reshape(len(x), -1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1)) for v in (z, score)]
            size = 2 * (now.alpha / to.alpha * self.snr * norms[0] / norms[1]) ** 2
            x = x + size * score + (2 * size).sqrt() * z
        return self.sampler.step(denoise, x, now, to, state, noise)


@dataclass(frozen=True)
class ScoreSDE(Langevin):
    """The predictor-corrector sampler of Song et al. 2021b, on VE and VP schedules alike, by one name.

    Corrections by Langevin dynamics, each step by reverse diffusion, the last to the denoised mean. Other predictors of
    theirs: `ReverseDiffusion("euler_maruyama")`, and the ancestral `DDPM()` (VE) and `DDPM("large")` (VP).
    """

    sampler: Sampler = field(default_factory=ReverseDiffusion)
