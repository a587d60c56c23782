"""Actions and observations to the range that a network likes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Configurable

Mode = Literal["limits", "gaussian"]


class Normalizer(Configurable, nn.Module):
    """An affine map for each number of each named stream, fitted on data and saved with the weights.

    A number that never changes is moved to 0 and not scaled.

    Args:
        mode: 'limits' maps the smallest and the largest value to -1 and 1; 'gaussian' gives mean 0 and variance 1.
        modes: The mode of single streams by their name, where it is another one.
        angles: Which numbers of a stream, counted from 0, are angles in radians: each becomes its sine and cosine,
            which know no jump from 2 pi to 0, and those come last.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(
        self,
        mode: Mode = "limits",
        modes: dict[str, Mode] | None = None,
        angles: dict[str, list[int]] | None = None,
    ) -> None:
        super().__init__()
        self.mode, self.modes, self.angles = mode, dict(modes or {}), dict(angles or {})
        for name in (mode, *self.modes.values()):
            if name not in ("limits", "gaussian"):
                raise ValueError(f"a stream is normalised by limits or gaussian; got {name!r}")

    @property
    def streams(self) -> list[str]:
        """Names of the streams it was fitted to."""
        return [name.removeprefix("offset/").replace("/", ".") for name in self._buffers if name.startswith("offset/")]

    def is_bounded(self, stream: str) -> bool:
        """Whether the data it was fitted to lies in [-1, 1] afterwards."""
        return self.modes.get(stream, self.mode) == "limits"

    def fit(self, data: Mapping[str, Any]) -> None:
        """Fit to the streams, arrays [samples, ...] of whose every number the samples are compared.

        Forgets what it was fitted to before.

        Raises:
            ValueError: NaN or infinity in a stream, or nothing at all.
        """
        for name in list(self._buffers):
            del self._buffers[name]
        for stream, values in data.items():
            rows = np.asarray(values, dtype=np.float64)
            if not len(rows) or not np.isfinite(rows).all():
                raise ValueError(f"{stream!r} needs finite numbers to be normalised, got NaN or none; clean the data")
            if self.is_bounded(stream):
                low, high = rows.min(axis=0), rows.max(axis=0)
                offset, scale = (low + high) / 2, (high - low) / 2
            else:
                offset, scale = rows.mean(axis=0), rows.std(axis=0)
            constant = scale <= 1e-6 * np.maximum(1e-3, np.abs(offset))  # a range that float32 could not tell from 0
            scale = np.where(constant, 1.0, scale)
            for kind, numbers in (("offset", offset), ("scale", scale)):
                self.register_buffer(_buffer(kind, stream), torch.tensor(numbers, dtype=torch.float32))

    def normalize(self, stream: str, values: Tensor) -> Tensor:
        """[batch, ..., numbers] as measured to the same, or more with angles, as the network sees them, float32."""
        offset, scale = self._of(stream, values)
        values = values.to(offset)
        normal = (values - offset) / scale
        if angles := self.angles.get(stream):
            rest = [i for i in range(values.shape[-1]) if i not in angles]
            turned = values[..., angles]
            normal = torch.cat([normal[..., rest], turned.sin(), turned.cos()], dim=-1)
        return normal

    def unnormalize(self, stream: str, values: Tensor) -> Tensor:
        """Undo `normalize`, for a stream without angles."""
        offset, scale = self._of(stream, values)
        return values * scale + offset

    def _of(self, stream: str, values: Tensor) -> tuple[Tensor, Tensor]:
        if stream not in self.streams:
            raise ValueError(
                f"the normalizer knows {self.streams or 'no streams yet'}, not {stream!r}; fit it, or train the policy"
            )
        offset, scale = self.get_buffer(_buffer("offset", stream)), self.get_buffer(_buffer("scale", stream))
        if values.shape[-offset.ndim :] != offset.shape:
            raise ValueError(f"{stream!r} must be [..., {', '.join(map(str, offset.shape))}]; got {[*values.shape]}")
        return offset, scale

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key, value in state_dict.items():  # what it was fitted to is known from the checkpoint alone
            if key.startswith(prefix) and key.removeprefix(prefix).split("/")[0] in ("offset", "scale"):
                self.register_buffer(key.removeprefix(prefix), torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _buffer(kind: str, stream: str) -> str:
    return f"{kind}/{stream.replace('.', '/')}"  # a buffer's name has no dots
