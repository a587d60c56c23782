"""Statistics of training data: computed in float64 in one pass, kept in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class RunningStatistics:
    """Mean, variance and limits of rows that come in batches, in one pass (Chan et al. 1983).

    Attributes:
        count: Number of rows.
        mean: [...] of the rows so far, float64.
        low: [...], the smallest values.
        high: [...], the largest values.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Adds rows [n, ...], each of the same shape."""
        if not len(rows):
            return
        rows = rows.detach().to("cpu", torch.float64)
        count, mean = len(rows), rows.mean(dim=0)
        squares = (rows - mean).square().sum(dim=0)
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        if not self.count:
            self.count, self.mean, self.squares, self.low, self.high = (
                count,
                mean,
                squares,
                low,
                high,
            )
            return
        total, difference = self.count + count, mean - self.mean
        self.squares = self.squares + squares + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count = total

    @property
    def std(self) -> Tensor:
        """[...], of the rows as a whole population."""
        return (self.squares / self.count).sqrt()


def unless_constant(scale: Tensor, offset: Tensor) -> Tensor:
    """The scale, or 1 where float32 could not tell the data's spread around the offset from 0."""
    return torch.where(scale <= 1e-6 * offset.abs().clamp(min=1e-3), 1.0, scale)


class KeepsStatistics(nn.Module):
    """A module whose own buffers keep their precision when the module is moved to another dtype."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self
