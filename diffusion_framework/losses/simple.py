"""`SimpleLoss`, the weighted squared error of the network's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..denoisers import NetworkDenoiser
from ..process.objectives import Objective
from .base import Loss, NoisedBatch
from .weights import output_weight


@final
@dataclass(frozen=True)
class SimpleLoss(Loss):
    """Weighted squared error of the network's output (Ho et al. 2020, eq. 14, has weight 1)."""

    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        output, _ = denoise.output(batch.x, batch.at)
        return weighted_error(output, denoise.objective, batch)


def weighted_error(output: Tensor, objective: Objective, batch: NoisedBatch) -> Tensor:
    """Returns the weighted mean squared errors [batch] of outputs [batch, ...]."""
    target = objective.target(batch.x0, batch.eps, batch.at)
    error = batch.mean((output - target).square())
    if batch.weight is None:
        return error
    return error * output_weight(batch.weight, objective, batch.at).to(error.dtype)
