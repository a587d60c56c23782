"""`HybridLoss`, for networks that learn the variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from ..conditions import Conditions
from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.posterior import Variance
from .base import Loss, NoisedBatch
from .simple import weighted_error
from .variational import VariationalLoss


@final
@dataclass(frozen=True)
class HybridLoss(Loss):
    """Simple loss plus a share of the variational bound (Nichol & Dhariwal 2021, eq. 16).

    The bound trains the variance only; its gradient does not reach the mean.

    Args:
        variance: Variance of the reverse steps: 'learned' or 'learned_range'.
        rescaled: Whether the bound is multiplied by the number of process steps.
        bins: Number of data values, evenly spaced over [-1, 1]: 256 for 8-bit images, None for
            continuous data.
        share: Factor of the bound, above 0.

    Raises:
        ValueError: If an option is out of range.
    """

    variance: Variance = "learned_range"
    rescaled: bool = True
    bins: int | None = 256
    share: float = 0.001

    times: ClassVar[str | None] = "steps"

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise ValueError(
                f"Expected a share of the bound above 0, got {self.share}. Fix: set share=0.001."
            )
        if not self.variance.startswith("learned"):
            raise ValueError(
                "Expected a learned variance for HybridLoss to train, got "
                f"variance={self.variance!r}. "
                "Fix: set variance='learned_range', or train with loss='simple'."
            )

    @property
    def bound(self) -> VariationalLoss:
        """The variational bound."""
        return VariationalLoss(self.variance, self.rescaled, self.bins)

    def check(self, parts: NetworkParts, steps: int | None, conditions: Conditions) -> None:
        self.bound.check(parts, steps, conditions)

    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        output, variance = denoise.output(batch.x, batch.at)
        term = self.bound.term(output.detach(), variance, denoise, batch)
        return weighted_error(output, denoise.objective, batch) + self.share * term
