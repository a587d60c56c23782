from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..denoiser import Denoiser
from ..level import Level, Noise, ancestral_std, forward_std, move
from .base import Sampler


@dataclass(frozen=True)
class DDPM(Sampler[None]):
    """Ancestral sampling, on any schedule and any spacing (Ho et al. 2020, Alg. 2).

    Args:
        variance: Of the reverse step: `small` is that of q(x_to | x_now, x0), right where the data is a single point;
            `large` is that of the forward step, right where the data is standard normal (ibid., sec. 3.2).
    """

    variance: Literal["small", "large"] = "small"

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large"):
            raise ValueError(f"variance must be 'small' or 'large'; got {self.variance!r}")

    def step(
        self, denoise: Denoiser, x: Tensor, now: Level, to: Level, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        small = ancestral_std(now, to)
        x = move(denoise(x, now), to, small)  # the mean is the same for both variances
        if not to.is_end:  # the last step adds no noise
            x = x.add(noise(x), alpha=small if self.variance == "small" else forward_std(now, to))
        return x, None
