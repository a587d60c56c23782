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

    Args:
        variance: Of the reverse step: `small` is that of q(x_to | x_now, x0), right where the data is a single point;
            `large` is that of the forward step, right where the data is standard normal (ibid., sec. 3.2). For a
            network that learned it: `learned_range` between the logarithms of those two, on any spacing, or `learned`,
            on the steps of training only (Nichol & Dhariwal 2021, eq. 15).
    """

    variance: Variance = "small"

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise ValueError(f"variance must be one of {', '.join(VARIANCES)}; got {self.variance!r}")

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        prediction = denoise(x, now)
        small = ancestral_std(now, to)
        x = move(prediction, to, small)  # the mean is the same for all variances
        if to.is_end:  # the last step adds no noise
            return x, None
        if self.variance in ("small", "large"):
            return x.add(noise(x), alpha=small if self.variance == "small" else forward_std(now, to)), None
        return x.addcmul(noise(x), torch.exp(log_variance(self.variance, prediction, now, to) / 2)), None
