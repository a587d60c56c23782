"""Noise levels of a training batch, and losses by noise level."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..process.level import Level

EDGES = (-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0)
"""Log-SNR at the edges of the bins; the first and the last bin have no outer edge."""

LEVEL_NAMES = tuple(
    f"loss_log_snr_{low}_{high}"
    for low, high in zip(
        ("below", *(f"{e:g}" for e in EDGES)), (*(f"{e:g}" for e in EDGES), "up"), strict=True
    )
)
"""Names of the bins, from noisy to clean."""


@dataclass(frozen=True)
class SampledLevels:
    """Noise levels of one training batch.

    Attributes:
        at: Levels of tensors [batch].
        weight: Importance weight of each loss, [batch]: keeps the expectation of uniform steps;
            None for 1.
        step: Process step of each sample, [batch], for time samplers with a memory; or None.
    """

    at: Level
    weight: Tensor | None = None
    step: Tensor | None = None

    def weighted(self, losses: Tensor) -> Tensor:
        """Returns losses [batch] times their importance weights."""
        return losses if self.weight is None else losses * self.weight.to(losses.dtype)


def losses_by_level(losses: Tensor, log_snr: Tensor) -> dict[str, Tensor]:
    """Returns the losses of the samples in each bin of log-SNR, [samples in it] by name.

    Args:
        losses: Losses of samples, [batch].
        log_snr: Log-SNR of each sample's noise level, [batch].
    """
    bins = (log_snr[:, None] >= log_snr.new_tensor(EDGES)).sum(1)
    return {name: losses[bins == index] for index, name in enumerate(LEVEL_NAMES)}
