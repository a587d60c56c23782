"""`ConsistencyLoss`, which tunes a diffusion model to reach the clean data in one call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..denoisers import NetworkDenoiser
from ..process.level import Level, expand_to
from ..process.noise import rewound
from ..process.schedules import NoiseSchedule
from .base import Loss, NoisedBatch
from .times import LogNormal, TimeSampler


@final
@dataclass(frozen=True)
class ConsistencyLoss(Loss):
    """Easy consistency tuning (ECT, Geng et al. 2024) on any schedule and objective.

    The network learns that its estimate of the clean data D is the same at two levels with the same
    noise, t > r of sigma / alpha: the loss is |D(x_t) - D(x_r)| / (t - r), where |.| is the root
    mean square and D(x_r) gets no gradient. At r = 0, D is the clean data itself. Each level has
    r = t max(0, 1 - (1 + 8 sigmoid(-t)) / q^(stage + 1)), so later stages have a smaller t - r.

    It starts from a trained diffusion model (`--init_from RUN`). Both calls have the same dropout
    and the same self-conditioning; training without self-conditioning suits sampling better. A loss
    weight is not used.

    Args:
        q: Factor by which t - r falls in each stage, above 1.
        stages: Number of stages of equal length in training, at least 1.
        softening: Error below which the loss becomes quadratic, above 0.

    Raises:
        ValueError: If an option is out of range.
    """

    q: float = 4.0
    stages: int = 4
    softening: float = 1e-4

    times: ClassVar[str | TimeSampler | None] = LogNormal(-1.1, 2.0)
    sampler: ClassVar[str | None] = "consistency"

    def __post_init__(self) -> None:
        if not (1 < self.q < math.inf and self.stages >= 1 and 0 < self.softening < math.inf):
            raise ValueError(
                f"Expected q above 1, stages of at least 1 and softening above 0, got {self}. "
                "Fix: start from ConsistencyLoss()."
            )

    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        gap = self.gap(denoise.schedule, batch.at, batch.progress)
        target = _target(denoise, batch, gap)
        output, variance = denoise.output(batch.x, batch.at)
        x0 = denoise.objective.prediction(output, batch.x, batch.at, variance).x0
        error = batch.mean((x0 - target).square())
        distance = (error + self.softening**2).sqrt() - self.softening
        # 1 / (t - r); the weight at alpha = 0 is the limit 0
        return distance * (batch.at.alpha / (batch.at.sigma * gap)).to(distance.dtype)

    def gap(self, schedule: NoiseSchedule, at: Level, progress: float) -> Tensor:
        """Returns (t - r) / t, in (0, 1], for levels of tensors [batch].

        It is 1 also where r is below the last level of the schedule, such as sigma 0.002 of EDM.

        Args:
            schedule: Noise schedule that gives the levels.
            at: Levels t.
            progress: Completed share of training, in [0, 1].
        """
        stage = min(int(progress * self.stages), self.stages - 1)
        t = torch.exp(torch.as_tensor(at.log_snr) / -2)
        gap = ((1 + 8 * torch.sigmoid(-t)) / self.q ** (stage + 1)).clamp(max=1)
        below = _log_snr(at, gap) > schedule.at(0.0).log_snr
        return torch.where(below, 1.0, gap)


@torch.no_grad()
def _target(denoise: NetworkDenoiser, batch: NoisedBatch, gap: Tensor) -> Tensor:
    """Returns D(x_r), or the clean data where r = 0, [batch, ...].

    The next call of the network has the same dropout as this one.
    """
    clean = gap >= 1
    to = denoise.schedule.at_log_snr(torch.where(clean, batch.at.log_snr, _log_snr(batch.at, gap)))
    level = to.expand_to(batch.x0)
    x = level.alpha * batch.x0 + level.sigma * batch.eps
    with rewound(x.device):
        output, variance = denoise.output(x, to)
    x0 = denoise.objective.prediction(output, x, to, variance).x0
    return torch.where(expand_to(clean, x0).bool(), batch.x0, x0)


def _log_snr(at: Level, gap: Tensor) -> Tensor:
    """Returns the log-SNR [batch] at r = (1 - gap) t."""
    return at.log_snr - 2 * torch.log1p(-gap)
