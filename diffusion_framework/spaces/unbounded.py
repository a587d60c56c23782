"""`Unbounded`: data of any range, mapped to mean 0 and standard deviation 1."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..parts.type_checks import typed
from .base import DataSpace, at_least_float32, checked_finite
from .statistics import KeepsStatistics, RunningStatistics, unless_constant


@final
class Unbounded(KeepsStatistics, DataSpace):
    """Space of data of any range (series, physical fields, latents), standardised, never clipped.

    Args:
        mean: Mean of the data: one number, or one for each entry along `axis`; None to fit mean and
            std to the training data.
        std: Standard deviation of the data, above 0: one number, or one for each entry along
            `axis`; None to fit it.
        axis: Dimension of a sample, without the batch, along which each entry has its own mean and
            std: 0 for leading channels, -1 for trailing channels; None for a single mean and std.

    Raises:
        ValueError: only one of mean and std, a number that is not finite, or a std of 0 or less.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        axis: int | None = 0,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError(
                f"Expected mean and std together, got mean={mean}, std={std}. "
                "Fix: give both, or neither to fit them to the training data."
            )
        self.axis = axis
        self._given = {"mean": _numbers(mean), "std": _numbers(std)}
        means, stds = self._given.values()
        if mean is not None and not (
            all(map(math.isfinite, means + stds)) and all(number > 0 for number in stds)
        ):
            raise ValueError(
                f"Expected finite means and stds above 0, got mean={mean}, std={std}. "
                "Fix: give neither to fit them to the training data."
            )
        for name, numbers in self._given.items():
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32))
        self._seen = RunningStatistics()

    def build(self, sample_shape: tuple[int, ...]) -> None:
        shape = [1] * len(sample_shape)
        if self.axis is not None:
            if not -len(shape) <= self.axis < len(shape):
                raise ValueError(
                    f"Expected an axis of samples {tuple(sample_shape)}, got {self.axis}. "
                    "Fix: set axis=None for a single mean and std."
                )
            shape[self.axis] = sample_shape[self.axis]
        size = math.prod(shape)
        for name, numbers in self._given.items():
            if len(numbers) not in (1, size):
                raise ValueError(
                    f"Expected 1 or {size} numbers for {name}, got {len(numbers)}. "
                    f"Fix: give one for each entry along axis {self.axis}."
                )
            device = self.get_buffer(name).device
            values = torch.tensor(
                numbers * (size // len(numbers)), dtype=torch.float32, device=device
            )
            self._buffers[name] = values.reshape(shape)

    @property
    def needs_fit(self) -> bool:
        return self.mean.device.type != "meta" and bool(self.mean.isnan().any())

    def observe(self, data: Tensor, condition: Mapping[str, Any]) -> None:
        data = at_least_float32(data.cpu())  # the statistics are computed there
        data = checked_finite(data, "remove NaN and infinity from the data")
        kept = [i + 1 for i, size in enumerate(self.mean.shape) if size > 1]
        wanted, fits = [*self.mean.shape], data.ndim == self.mean.ndim + 1
        if not fits or any(data.shape[i] != wanted[i - 1] for i in kept):
            raise ValueError(
                f"Expected data [batch, ...] with statistics of shape {wanted}, got "
                f"{[*data.shape]}. Fix: give data of the shape that the model was built for."
            )
        others = [i for i in range(data.ndim) if i not in kept]
        self._seen.add(data.permute(*others, *kept).flatten(0, len(others) - 1))

    def finish(self) -> None:
        if not self._seen.count:
            raise ValueError("Expected training data, got none. Fix: call observe first.")
        self.mean.copy_(self._seen.mean.reshape(self.mean.shape))
        std = unless_constant(self._seen.std, self._seen.mean)
        self.std.copy_(std.reshape(self.std.shape))
        self._seen = RunningStatistics()

    @typed
    def encode(
        self, data: Shaped[Tensor, "batch *shape"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch *shape"]:
        """Standardises data [batch, ...]; see `DataSpace.encode`.

        Raises:
            ValueError: NaN, infinity, or unfitted statistics (on the CPU).
        """
        check_fitted(self.mean)
        data = checked_finite(at_least_float32(data), "remove NaN and infinity from the data")
        return (data - self.mean) / self.std

    @typed
    def decode(
        self, x0: Float[Tensor, "batch *shape"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch *shape"]:
        """Inverts `encode`, without clipping."""
        return at_least_float32(x0) * self.std + self.mean

    def bits_offset(self) -> float:
        return float(self.std.double().log2().mean())

    def pictures(self, data: Tensor) -> Tensor | None:
        """Returns images with 0 and 1 at three standard deviations from the mean."""
        if data.ndim != 4 or data.shape[1] not in (1, 3):
            return None
        return ((data - self.mean) / self.std / 6 + 0.5).clamp(0, 1)


def check_fitted(statistics: Tensor) -> None:
    """Raises ValueError for NaN statistics on the CPU; on other devices, the loss becomes NaN."""
    if statistics.device.type == "cpu" and statistics.isnan().any():
        raise ValueError(
            "Expected statistics of the training data, got none yet. "
            "Fix: train the model, call fit(batches) before, or load a checkpoint."
        )


def _numbers(value: float | Sequence[float] | None) -> list[float]:
    """Returns the numbers as a list, or [NaN] for None."""
    if value is None:
        return [math.nan]
    return [float(value)] if isinstance(value, int | float) else [float(v) for v in value]
