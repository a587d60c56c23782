"""Normalisation of named streams of numbers, such as observations and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from ..storage.config import RecordsArguments
from .base import at_least_float32
from .statistics import KeepsStatistics, RunningStatistics, unless_constant

Mode = Literal["limits", "gaussian"]


@final
class Normalizer(RecordsArguments, KeepsStatistics):
    """Affine map of each number of each named stream, fitted to training data.

    A constant number is shifted to 0 and not scaled. Neither is one that varies by less than
    `smallest_range`, since it would be scaled by thousands when it varies later.

    Args:
        mode: Mode of all streams: 'limits' maps the smallest and the largest value to -1 and 1;
            'gaussian' gives mean 0 and variance 1.
        modes: Exceptions from `mode`, by the name of the stream.
        angles: Indices of the angles (in radians) of each stream, by its name. Each angle is
            replaced by its sine and cosine, which follow all other numbers.
        smallest_range: Range of a number (largest minus smallest value) from which on it is scaled.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(
        self,
        mode: Mode = "limits",
        modes: dict[str, Mode] | None = None,
        angles: dict[str, list[int]] | None = None,
        smallest_range: float = 1e-4,
    ) -> None:
        super().__init__()
        self.mode, self.modes, self.angles = mode, dict(modes or {}), dict(angles or {})
        self.smallest_range = smallest_range
        for name in (mode, *self.modes.values()):
            if name not in ("limits", "gaussian"):
                raise ValueError(
                    f"Expected the mode 'limits' or 'gaussian', got {name!r}. Fix: take 'limits'."
                )
        self._seen: dict[str, RunningStatistics] = {}

    @property
    def streams(self) -> list[str]:
        """Names of the streams, as given to `build`."""
        names = [name for name in self._buffers if name.startswith("offset/")]
        return [name.removeprefix("offset/").replace("/", ".") for name in names]

    def is_bounded(self, stream: str) -> bool:
        """Returns whether normalised training data of a stream lies in [-1, 1]."""
        return self.modes.get(stream, self.mode) == "limits"

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Allocates statistics of streams of these shapes, without the batch, NaN until fitted."""
        for name in list(self._buffers):
            del self._buffers[name]
        for stream, shape in shapes.items():
            for kind in ("offset", "scale"):
                self.register_buffer(_buffer(kind, stream), torch.full(shape, torch.nan))

    @property
    def needs_fit(self) -> bool:
        """Whether statistics of a stream are still unknown."""
        return any(
            b is not None and b.device.type != "meta" and bool(b.isnan().any())
            for b in self._buffers.values()
        )

    def observe(self, data: Mapping[str, Any]) -> None:
        """Updates the statistics with a batch of streams [samples, ...].

        Raises:
            ValueError: NaN or infinity in a stream.
        """
        for stream, values in data.items():
            rows = torch.as_tensor(values).detach().to("cpu", torch.float64)
            self.statistics(stream, rows.shape)
            if not torch.isfinite(rows).all():
                raise ValueError(
                    f"Expected finite numbers in {stream!r}, got NaN or infinity. "
                    "Fix: remove these samples."
                )
            self._seen.setdefault(stream, RunningStatistics()).add(rows)

    def finish(self) -> None:
        """Computes the statistics of all observed data and keeps them.

        Raises:
            ValueError: no data of a stream was observed.
        """
        for stream in self.streams:
            seen = self._seen.pop(stream, None)
            if seen is None or not seen.count:
                raise ValueError(
                    f"Expected training data of {stream!r}, got none. Fix: call observe first."
                )
            if self.is_bounded(stream):
                offset, scale = (seen.low + seen.high) / 2, (seen.high - seen.low) / 2
            else:
                offset, scale = seen.mean, seen.std
            scale = unless_constant(scale, offset)
            scale = torch.where(seen.high - seen.low < self.smallest_range, 1.0, scale)
            for buffer, numbers in zip(self.statistics(stream), (offset, scale), strict=True):
                buffer.copy_(numbers)

    def fit(self, data: Mapping[str, Any]) -> None:
        """Replaces all statistics by the statistics of whole streams, arrays [samples, ...].

        Raises:
            ValueError: a stream is empty, or holds NaN or infinity.
        """
        arrays = {stream: np.asarray(values) for stream, values in data.items()}
        self.build({stream: values.shape[1:] for stream, values in arrays.items()})
        self.observe(arrays)
        self.finish()

    def normalize(self, stream: str, values: Tensor) -> Tensor:
        """Normalises values [batch, ..., numbers], in float32 or higher precision.

        The result has one more number for each angle.
        """
        offset, scale = self.statistics(stream, values.shape)
        values = at_least_float32(values).to(offset.device)
        normal = (values - offset) / scale
        if angles := self.angles.get(stream):
            rest = [i for i in range(values.shape[-1]) if i not in angles]
            turned = values[..., angles]
            normal = torch.cat([normal[..., rest], turned.sin(), turned.cos()], dim=-1)
        return normal

    def unnormalize(self, stream: str, values: Tensor) -> Tensor:
        """Inverts `normalize` for a stream without angles."""
        offset, scale = self.statistics(stream, values.shape)
        return at_least_float32(values) * scale + offset

    def far_outside(self, stream: str, values: Tensor) -> Tensor:
        """Returns where values [batch, ..., numbers] lie far outside of the fitted data.

        Far is more than the width of the range beyond its ends or, for 'gaussian', more than 10
        standard deviations. Angles are never far.
        """
        offset, scale = self.statistics(stream, values.shape)
        limit = 3.0 if self.is_bounded(stream) else 10.0
        far = (at_least_float32(values).to(offset.device) - offset).abs() > limit * scale
        far[..., self.angles.get(stream, [])] = False
        return far

    def statistics(
        self, stream: str, shape: tuple[int, ...] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the offset and the scale of a stream, both in its shape without the batch.

        Args:
            stream: Name of the stream.
            shape: Shape of values to check, [batch, ..., numbers]; None to check nothing.

        Raises:
            ValueError: an unknown stream, or values of another shape.
        """
        if stream not in self.streams:
            known = ", ".join(self.streams) or "no streams yet"
            raise ValueError(
                f"Expected a fitted stream ({known}), got {stream!r}. "
                "Fix: fit the normalizer, or train the policy."
            )
        offset = self.get_buffer(_buffer("offset", stream))
        scale = self.get_buffer(_buffer("scale", stream))
        if shape is not None and shape[len(shape) - offset.ndim :] != offset.shape:
            numbers = ", ".join(map(str, offset.shape))
            raise ValueError(
                f"Expected {stream!r} [..., {numbers}], got {[*shape]}. "
                "Fix: pass the shape used in training."
            )
        return offset, scale


def _buffer(kind: str, stream: str) -> str:
    return f"{kind}/{stream.replace('.', '/')}"  # PyTorch refuses dots in names of buffers
