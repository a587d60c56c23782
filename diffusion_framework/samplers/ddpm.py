from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..process.level import Level, Noise, ancestral_std, forward_std, move
from ..process.posterior import VARIANCES, Variance, log_variance
from .base import Sampler


@dataclass(frozen=True)
class DDPM(Sampler[None]):
    """Ancestral sampling, on any schedule and any spacing (Ho et al. 2020, Alg. 2).

    The last step, to the clean end, adds no noise.

    Args:
        variance: Variance of the reverse step. `small` is exact if the data is a single point,
            `large` if it is standard normal (Ho et al. 2020, sec. 3.2). `learned_range` and
            `learned` need a network with learned variance (Nichol & Dhariwal 2021, eq. 15):
            `learned_range` interpolates between the logarithms of small and large, on any spacing;
            `learned` needs the steps of training.

    Raises:
        ValueError: If `variance` is unknown.
    """

    variance: Variance = "small"

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise ValueError(
                f"Expected variance to be one of {', '.join(VARIANCES)}, got {self.variance!r}. "
                "Fix: use 'small' or 'large'."
            )

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        prediction = denoise(x, now)
        small = ancestral_std(now, to)
        x = move(prediction, to, small)  # the mean does not depend on the variance
        if to.is_end:
            return x, None
        if self.variance in ("small", "large"):
            std = small if self.variance == "small" else forward_std(now, to)
            return x.add(noise(x), alpha=std), None
        learned_std = torch.exp(log_variance(self.variance, prediction, now, to) / 2)
        return x.addcmul(noise(x), learned_std), None
