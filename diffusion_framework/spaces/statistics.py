"""Statistics of training data, computed in float64 in one pass and stored in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class RunningStatistics:
    """Running mean, variance and limits of rows that arrive in batches (Chan et al. 1983).

    Attributes:
        count: Number of rows so far.
        mean: Mean of the rows, float64 in the shape of a row.
        squares: Sum of the squared deviations from the mean.
        low: Smallest values.
        high: Largest values.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Updates the statistics with rows [n, ...]."""
        if not len(rows):
            return
        rows = rows.detach().to("cpu", torch.float64)
        count, mean = len(rows), rows.mean(dim=0)
        squares = (rows - mean).square().sum(dim=0)
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        if not self.count:
            self.count, self.mean, self.squares = count, mean, squares
            self.low, self.high = low, high
            return
        total, difference = self.count + count, mean - self.mean
        self.squares = self.squares + squares + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count = total

    @property
    def std(self) -> Tensor:
        """Standard deviation of the rows as a whole population, dividing by their number."""
        return (self.squares / self.count).sqrt()


def unless_constant(scale: Tensor, offset: Tensor) -> Tensor:
    """Returns the scale, or 1 where float32 rounding errors of the offset would dominate it."""
    return torch.where(scale <= 1e-6 * offset.abs().clamp(min=1e-3), 1.0, scale)


class KeepsStatistics(nn.Module):
    """Module whose own buffers keep their dtype when the module is converted to another one."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self
