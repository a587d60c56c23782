"""What training minimises: the interface of a loss, and the batch that it is asked about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.level import Level
from ..process.posterior import Variance
from .weights import LossWeight


@final
@dataclass(frozen=True)
class NoisedBatch:
    """One batch of training: clean data, its noise, and both mixed.

    Attributes:
        x0: Clean data, [batch, ...].
        eps: Standard normal noise, shaped like x0.
        x: `alpha x0 + sigma eps`, shaped like x0.
        at: Levels of tensors [batch].
        mask: False where the error does not count, over the leading dimensions of x0; or None.
        weight: Weight on the squared error of the clean data; None for 1 on that of the output.
        steps: Number of steps of the process, or None in continuous time.
        progress: Share of training that is done, in [0, 1].
        generator: For whatever else the loss draws; None is torch's default one.
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
        """The means [batch] of errors [batch, ...] that count 0 where the mask is False.

        The mean is over all dimensions, so that every one that counts weighs the same.
        """
        if self.mask is not None:
            error = error * self.mask.reshape(
                *self.mask.shape, *(1,) * (error.ndim - self.mask.ndim)
            )
        return error.flatten(1).mean(dim=1)


class Loss(ABC):
    """A frozen dataclass: what is minimised, and what goes with a network that was trained so.

    Attributes:
        variance: Variance of the reverse steps, for sampling.
        times: Name of the time sampler for a model that names none; None for the usual one.
        sampler: Name of the sampler for a model that was trained so; None for the usual one.
    """

    variance: Variance = "small"
    times: ClassVar[str | None] = None
    sampler: ClassVar[str | None] = None

    def check(self, parts: NetworkParts, steps: int | None) -> None:  # noqa: B027
        """Raises ValueError unless the loss goes with these parts.

        Args:
            parts: The network, its schedule and its objective.
            steps: Number of steps of the process, or None in continuous time.
        """

    @abstractmethod
    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        """The losses [batch].

        Args:
            denoise: The network, told the conditions of the batch; it may remember an estimate.
            batch: What was noised.
        """
