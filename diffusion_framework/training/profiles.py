"""Averages of the weights with power-function profiles, tracked during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..averaging import PowerProfile
from ..storage.checkpoint import Checkpoint
from ..storage.manifest import DamagedCheckpoint
from ..storage.post_hoc_ema import StoredAverages, profile_file
from ..storage.writing import write_snapshot
from ..trainable import Trainable
from .starting import network_tensors

Tensors = dict[str, Tensor]


class TrackedProfiles:
    """Averages of the weights of a model, each with a power-function profile.

    The average of step t adds the weights of this step with the share of the profile between it and
    the step before. No step waits for the device.

    Args:
        model: Model in training.
        profiles: Profiles to track; none switches this off.
        every: Number of optimizer steps between two updates.
        count: Number of snapshots in the whole run.

    Attributes:
        step: Step of the last update; 0 before the first one.
        snapshots: Checksum of each snapshot of the run by its step, on the main process.
    """

    def __init__(
        self, model: Trainable, profiles: Sequence[PowerProfile], every: int, count: int
    ) -> None:
        self._model, self._every, self._count = model, every, count
        self.profiles = tuple(profiles)
        self.reset()

    def reset(self) -> None:
        """Begins anew, as before the first step."""
        self.step, self.snapshots = 0, dict[int, str]()
        self._averages: dict[PowerProfile, Tensors] = {}

    def interval(self, steps: int) -> int:
        """Returns the number of steps between two snapshots in a run of `steps`; 0 is none."""
        if not self.profiles or not self._count:
            return 0
        return max(1, round(steps / self._count / self._every)) * self._every

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the weights after an optimizer step, if it is due for an update."""
        if not self.profiles or step % self._every:
            return
        weights = self._weights()
        for profile in self.profiles:
            if self.step == 0:
                self._averages[profile] = {k: v.detach().clone() for k, v in weights.items()}
                continue
            mine, share = self._averages[profile], 1 - profile.decay(self.step, step)
            torch._foreach_lerp_([*mine.values()], [weights[name] for name in mine], share)
        self.step = step

    def _weights(self) -> Tensors:
        """Returns the tensors to average by name, in float32 or wider."""
        return {
            name: value.detach().to(torch.promote_types(value.dtype, torch.float32))
            for name, value in network_tensors(self._model).items()
            if value.is_floating_point()
            if value.requires_grad or not isinstance(value, nn.Parameter)
        }

    def tensors(self) -> dict[str, Tensors]:
        """Returns the averages by the name of their file; empty before the first update."""
        return {profile_file(profile): mine for profile, mine in self._averages.items()}

    def numbers(self) -> dict[str, Any] | None:
        """Returns what a checkpoint holds besides the tensors; None without profiles."""
        if not self.profiles:
            return None
        listed = {str(step): checksum for step, checksum in self.snapshots.items()}
        widths = [profile.width for profile in self.profiles]
        return {"widths": widths, "step": self.step, "snapshots": listed}

    def load(self, checkpoint: Checkpoint, shard: Callable[..., Tensors]) -> None:
        """Restores the averages from a checkpoint.

        Args:
            checkpoint: Checkpoint that `check_profiles` has passed.
            shard: Function that shards tensors by name like others, if these are sharded.

        Raises:
            ValueError: If the averages do not fit the model.
        """
        stored = StoredAverages.of(checkpoint)
        if not self.profiles or stored is None:
            return
        self.step, self.snapshots = stored.step, dict(stored.snapshots)
        weights = self._weights()
        for profile in self.profiles if self.step else ():
            values = checkpoint.tensors(profile_file(profile))
            if not _fit(values, weights):
                raise DamagedCheckpoint(checkpoint.path, "its averages do not fit the weights")
            placed = shard(values, own=weights)
            self._averages[profile] = {k: placed[k].to(weights[k].device) for k in weights}

    def write_snapshot(self, folder: Path, tensors: Mapping[str, Tensors]) -> str:
        """Writes whole tensors by file and name to a results folder; returns the checksum."""
        half = {file: {k: _halved(v) for k, v in group.items()} for file, group in tensors.items()}
        return write_snapshot(folder, self.step, half)


def _fit(values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    return values.keys() == weights.keys() and all(
        value.shape == weights[name].shape
        and value.dtype == weights[name].dtype
        and bool(value.isfinite().all())
        for name, value in values.items()
    )


def _halved(tensor: Tensor) -> Tensor:
    """Returns a tensor in half precision, unless its numbers are too large for it."""
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor
