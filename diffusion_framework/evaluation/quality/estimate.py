"""A measured value with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A measured value and its standard error.

    Args:
        value: Value.
        error: Standard error; the interval `value ± 1.96 error` holds about 95 % of repetitions.
    """

    value: float
    error: float

    @classmethod
    def mean(cls, values: Tensor) -> Estimate:
        """Returns the mean of values [n] and its standard error."""
        values = values.double()
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(values.mean().item(), error)

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {1.96 * self.error:.2g}"
