from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, forward_std, move
from .base import Sampler


@dataclass(frozen=True)
class ReverseDiffusion(Sampler[None]):
    """Sampler of the reverse SDE, discretised like the forward SDE.

    It follows Song et al. 2021b, sec. 4.1 and app. E. The last step, to sigma = 0, returns the
    denoised mean.

    Args:
        discretisation: Discretisation of a step: `steps` mirrors the exact forward step;
            `euler_maruyama` uses the drift and diffusion of the SDE at the start of the step.

    Raises:
        ValueError: If `discretisation` is unknown.
    """

    discretisation: Literal["steps", "euler_maruyama"] = "steps"

    def __post_init__(self) -> None:
        if self.discretisation not in ("steps", "euler_maruyama"):
            raise ValueError(
                "Expected discretisation to be 'steps' or 'euler_maruyama', "
                f"got {self.discretisation!r}. Fix: use 'steps'."
            )

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        prediction = denoise(x, now)
        if to.is_end:
            return move(prediction, to), None
        if self.discretisation == "steps" or now.alpha == 0:  # infinite drift
            factor, std = 2 - now.alpha / to.alpha, forward_std(now, to)
        else:
            factor = 1 - math.log(now.alpha / to.alpha)
            std = now.sigma * math.sqrt(to.log_snr - now.log_snr)
        mean = torch.add(x * factor, prediction.eps, alpha=-(std**2) / now.sigma)
        return mean.add_(noise(x), alpha=std), None
