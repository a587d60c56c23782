"""`Loss`, the interface of a training loss, and `NoisedBatch`, its input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..conditions import Conditions
from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.level import Level
from ..process.posterior import Variance
from .times import TimeSampler
from .weights import LossWeight


@final
@dataclass(frozen=True)
class NoisedBatch:
    """A training batch: clean data, noise, and the noised data.

    Attributes:
        x0: Clean data, [batch, ...].
        eps: Standard normal noise, shaped like x0.
        x: Noised data `alpha x0 + sigma eps`, shaped like x0.
        at: Levels of tensors [batch].
        mask: Mask over the leading dimensions of x0, False where the error is ignored; or None.
        weight: Weight on the squared error of x0; None for weight 1 on that of the output.
        steps: Number of process steps, or None in continuous time.
        progress: Completed share of training, in [0, 1].
        generator: Generator for the loss's own random draws; None for PyTorch's default.
    """

    x0: Tensor
    eps: Tensor
    x: Tensor
    at: Level
    mask: Tensor | None = None
    weight: LossWeight | None = None
    steps: int | None = None
    progress: float = 1.0
    generator: torch.Generator | None = None

    def mean(self, error: Tensor) -> Tensor:
        """Returns the means [batch] of errors [batch, ...], which are 0 where the mask is False.

        The mean divides by the number of all entries, so each unmasked entry has the same weight.
        """
        if self.mask is not None:
            error = error * self.mask.reshape(
                *self.mask.shape, *(1,) * (error.ndim - self.mask.ndim)
            )
        return error.flatten(1).mean(dim=1)


class Loss(ABC):
    """Base of losses, frozen dataclasses that also propose how to train and how to sample.

    Attributes:
        variance: Variance of the reverse steps when sampling.
        times: Time sampler or its name to use unless the user sets one; None for no preference.
        sampler: Name of the sampler to use unless the user sets one; None for no preference.
    """

    variance: Variance = "small"
    times: ClassVar[str | TimeSampler | None] = None
    sampler: ClassVar[str | None] = None

    def check(  # noqa: B027
        self, parts: NetworkParts, steps: int | None, conditions: Conditions
    ) -> None:
        """Checks that the loss can train a model of these parts.

        Args:
            parts: Network, schedule and objective.
            steps: Number of process steps, or None in continuous time.
            conditions: Conditioners of the model.

        Raises:
            ValueError: If the loss cannot train them.
        """

    @abstractmethod
    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        """Returns the loss of each sample, [batch].

        Args:
            denoise: Network with the conditions of the batch; may hold a self-conditioning
                estimate.
            batch: Noised batch.
        """
