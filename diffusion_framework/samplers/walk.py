"""`Walk`: the resolved options of sampling and editing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..conditions.base import as_tensor
from ..denoisers import Denoiser
from ..process.level import Level, Noise
from ..spaces import DataSpace
from .base import Sampler, Snapshot
from .grids import Grid


@final
@dataclass(frozen=True)
class Walk:
    """A trajectory from noise to data, ready to run once.

    Attributes:
        denoise: Denoiser of this trajectory. It may keep its last estimate.
        fresh: Returns another denoiser with the same conditions and without memory.
        sampler: Sampler that steps through the grid.
        grid: Levels to visit.
        noise: Source of the sampler's noise.
        start: Samples at the first level of the grid, [batch, ...].
        space: Data space that maps x0 to the user's units.
        condition: Values of the conditions by name, in the user's units.
    """

    denoise: Denoiser
    fresh: Callable[[], Denoiser]
    sampler: Sampler
    grid: Grid
    noise: Noise
    start: Tensor
    space: DataSpace
    condition: Mapping[str, Any]

    def __repr__(self) -> str:
        """Returns one line, without the network and the noise."""
        shape, names = [*self.start.shape], ", ".join(self.condition)
        told = f", condition={names}" if names else ""
        return f"Walk({self.sampler}, {self.grid}, start={shape}{told})"

    def decode(self, x: Tensor, at: Level | None = None) -> Tensor:
        """Maps samples to the user's units.

        Args:
            x: Samples at the last level, or an estimate of the clean data, [batch, ...].
            at: Level of x, whose alpha is divided out; None for clean data.
        """
        x0 = x if at is None else x / at.alpha
        return self.space.decode(x0, self.condition)


def checked(snapshots: Iterable[Snapshot]) -> Iterator[Snapshot]:
    """Yields the snapshots and checks that they are finite.

    On a GPU the check runs after the last snapshot, because an earlier one would synchronise the
    device.

    Raises:
        FloatingPointError: If a snapshot holds NaN or infinity.
    """
    times: list[float] = []
    finite: list[Tensor] = []
    for snapshot in snapshots:
        times.append(snapshot.now.t)
        finite.append(torch.isfinite(snapshot.x).all())
        if snapshot.x.device.type == "cpu" and not finite[-1]:
            break
        yield snapshot
    if not finite or finite[-1].is_meta:
        return
    finite_steps = torch.stack(finite).tolist()
    if not all(finite_steps):
        first = finite_steps.index(False)
        raise FloatingPointError(
            f"Expected finite samples, got NaN or infinity in step {first + 1} of sampling, at "
            f"time {times[first]:.3g}. Fix: take an earlier checkpoint if training diverged, or "
            "sample in float32."
        )


def first_noise(noise: Tensor | np.ndarray | None, source: Noise, like: Tensor) -> Tensor:
    """Returns the given noise, or draws it.

    Args:
        noise: Standard normal noise, [batch, ...]; None draws it from `source`.
        source: Source of noise.
        like: Tensor of the expected shape, dtype and device.

    Raises:
        ValueError: If the noise has another shape.
    """
    if noise is None:
        return source(like)
    noise = as_tensor(noise, like.device, f"noise {[*like.shape]}")
    if noise.shape != like.shape:
        raise ValueError(
            f"Expected noise {[*like.shape]}, got {[*noise.shape]}. Fix: give one for each sample."
        )
    return noise.to(like)
