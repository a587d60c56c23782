"""Averages of the weights of any width, made from what a run has stored (post-hoc EMA).

A run with `ema.profiles` keeps the averages with these profiles in its checkpoints, and half
precision snapshots of them beside these:

    results/ema/step-00000500/
        profile-0.05.safetensors  profile-0.1.safetensors    averages up to this step
        config.yaml  state.json  manifest.json               as in a checkpoint

Each checkpoint lists the checksums of the snapshots before it, so that no others are used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..averaging import NARROWEST, WIDEST, Averages, Combination, PowerProfile
from ..parts.counting import counted
from .checkpoint import PREFIX, SNAPSHOTS, STATE, Checkpoint
from .files import sha256
from .manifest import MANIFEST, DamagedCheckpoint
from .run_paths import results_folder

MOST_ERROR = 0.05  # of a profile that is made from others
_PROFILE = "profile-"
_MOST = 1000  # averages in a run
_NEGLIGIBLE = 1e-9  # share of an average
_TRAIN = "train with --trainer.ema.profiles 0.05,0.1"


def post_hoc_ema(run: str | os.PathLike[str], width: float) -> dict[str, Tensor]:
    """Returns weights averaged with a power-function profile (Karras et al. 2024, sec. 3.2).

    `from_pretrained(run, weights=width)` opens a model with them.

    Args:
        run: Results folder of a run with `ema.profiles`, or one of its checkpoints.
        width: Width of the average: standard deviation of its steps, as a share of all steps.

    Raises:
        ValueError: If the run has no profiles, the width cannot be made from its snapshots, or a
            file is damaged.
    """
    return open_weights(Checkpoint.find(run), width)[1]


def open_weights(checkpoint: Checkpoint, weights: str | float) -> tuple[str, dict[str, Tensor]]:
    """Returns the name and the tensors of the weights of a run or of an export.

    Args:
        checkpoint: Checkpoint or export.
        weights: 'ema' or 'model', for which an export gives what it holds, or the width of an
            average.

    Raises:
        ValueError: If there are no such weights, or a file is damaged.
    """
    name = weights_name(checkpoint, weights)
    if isinstance(weights, str) or name in checkpoint.kinds():
        return name, checkpoint.tensors(name)
    stored = StoredAverages.of(checkpoint)
    if stored is None:
        raise ValueError(
            f"{checkpoint.path}: expected a run with profiles of the EMA for weights "
            f"{weights:g}, got one without. Fix: {_TRAIN}, or use the weights ema."
        )
    return name, stored.weights(PowerProfile(weights))


def weights_name(checkpoint: Checkpoint, weights: str | float) -> str:
    """Returns the name of weights, such as ema, model or ema-0.08.

    Raises:
        ValueError: If an average of a width is asked of an export of other weights.
    """
    if isinstance(weights, str):
        return checkpoint.choose(weights)
    name, kinds = f"ema-{PowerProfile(weights).name}", checkpoint.kinds()
    if len(kinds) == 1 and kinds != [name]:
        raise ValueError(
            f"{checkpoint.path}: expected an export of the weights {weights:g}, got one of "
            f"{kinds[0]}. Fix: leave weights out, or give the run itself."
        )
    return name


def profile_file(profile: PowerProfile) -> str:
    """Returns the name of the file of an average, without suffix."""
    return f"{_PROFILE}{profile.name}"


def is_whole(kind: str) -> bool:
    """Returns whether a file of tensors, by its name without suffix, has all weights of a model."""
    return kind != "optimizer" and not kind.startswith(_PROFILE)


@dataclass(frozen=True)
class StoredAverages:
    """Averages in a checkpoint and in the snapshots of its run.

    Attributes:
        checkpoint: Checkpoint.
        profiles: Profiles of the averages.
        step: Step of the averages in the checkpoint; 0 before the first one.
        snapshots: Checksum of the manifest of each earlier snapshot, by its step.
    """

    checkpoint: Checkpoint
    profiles: tuple[PowerProfile, ...]
    step: int
    snapshots: Mapping[int, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> StoredAverages | None:
        """Reads what a checkpoint says of its averages; None if it has none.

        Raises:
            ValueError: If that is damaged.
        """
        if STATE not in checkpoint.files or not (checkpoint.path / STATE).exists():
            return None
        stored = checkpoint.state.get("profiles")
        if stored is None:
            return None
        try:
            widths, step, listed = (stored[key] for key in ("widths", "step", "snapshots"))
            profiles = tuple(PowerProfile(float(width)) for width in widths)
            snapshots = {int(at): str(checksum) for at, checksum in listed.items()}
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise DamagedCheckpoint(checkpoint.path, "state.json has no profiles") from error
        fits = type(step) is int and all(0 < at <= step for at in snapshots)
        fits = fits and 0 <= step <= checkpoint.step
        if not fits or not 1 <= len(profiles) * (1 + len(snapshots)) <= _MOST:
            raise DamagedCheckpoint(checkpoint.path, "the profiles in state.json are out of range")
        return cls(checkpoint, profiles, step, snapshots)

    @cached_property
    def found(self) -> dict[int, Path]:
        """Folders of the snapshots before the checkpoint by step; they may have been deleted."""
        results = results_folder(self.checkpoint)
        folders = {
            step: results / SNAPSHOTS / f"{PREFIX}{step:08d}"
            for step in sorted(self.snapshots)
            if results is not None and step < self.step
        }
        return {step: folder for step, folder in folders.items() if folder.is_dir()}

    @cached_property
    def _members(self) -> list[tuple[PowerProfile, int]]:
        steps = (*self.found, self.step)
        return [(profile, step) for step in steps for profile in self.profiles]

    @cached_property
    def _averages(self) -> Averages:
        profiles, steps = zip(*self._members, strict=True)
        return Averages(profiles, steps)

    def describe(self) -> dict[str, Any]:
        """Returns what can be made of the averages, as plain data."""
        profiles, widths = [profile.width for profile in self.profiles], [*(self.widths or ())]
        return {"profiles": profiles, "snapshots": len(self.found), "widths": widths}

    def combine(self, profile: PowerProfile) -> Combination:
        """Returns how the average with a profile is made from the stored ones."""
        return self._averages.combine(profile, self.step)

    @property
    def widths(self) -> tuple[float, float] | None:
        """Smallest and largest width that can be made, in thousandths; None without averages."""
        if not self.step:
            return None
        own = [profile.width for profile in self.profiles]
        ends = self._farthest(min(own), NARROWEST), self._farthest(max(own), 0.9999 * WIDEST)
        low, high = (round(1000 * end, 6) for end in ends)
        return math.ceil(low) / 1000, math.floor(high) / 1000

    def _farthest(self, good: float, bad: float) -> float:
        """Returns the width nearest to `bad` that can be made, by bisection from a good one."""
        for _ in range(16):
            middle = math.sqrt(good * bad)
            if self.combine(PowerProfile(middle)).error <= MOST_ERROR:
                good = middle
            else:
                bad = middle
        return good

    def weights(self, profile: PowerProfile) -> dict[str, Tensor]:
        """Returns all weights averaged with a profile; what is not averaged is that of the EMA.

        Raises:
            ValueError: If the profile cannot be made, or a file is damaged.
        """
        self._check(profile)
        base = self.checkpoint.tensors("ema")
        total: dict[str, Tensor] = {}
        for share, name, value in self._shares(profile, base):
            total[name] = total[name] + share * value if name in total else share * value
        return base | {name: value.to(base[name].dtype) for name, value in total.items()}

    def _shares(
        self, profile: PowerProfile, base: Mapping[str, Tensor]
    ) -> Iterator[tuple[float, str, Tensor]]:
        """Yields the tensors to add up, each with its share and name, one file at a time."""
        shapes = self.checkpoint.shapes(profile_file(self.profiles[0]))
        if any(name not in base or base[name].shape != shape for name, shape in shapes.items()):
            raise DamagedCheckpoint(self.checkpoint.path, "its averages are of other weights")
        combined = [1.0 * (member == (profile, self.step)) for member in self._members]
        if profile not in self.profiles:
            combined = self.combine(profile).coefficients.tolist()
        for share, (each, step) in zip(combined, self._members, strict=True):
            if abs(share) < _NEGLIGIBLE:
                continue
            tensors = self.read(each, step)
            folder = self.found.get(step, self.checkpoint.path)
            if {name: (*value.shape,) for name, value in tensors.items()} != shapes:
                raise _damaged(folder, "its weights are others than those of the checkpoint")
            for name, value in tensors.items():
                if not value.is_floating_point() or not bool(value.isfinite().all()):
                    raise _damaged(folder, f"{name:.100} is not finite")
                yield share, name, value.double()

    def read(self, profile: PowerProfile, step: int) -> dict[str, Tensor]:
        """Returns the average with a stored profile up to a stored step."""
        if step == self.step:
            return self.checkpoint.tensors(profile_file(profile))
        folder = self.found[step]
        try:
            snapshot = Checkpoint.open(folder)
            if sha256(folder / MANIFEST) != self.snapshots[step]:
                raise _damaged(folder, "it is not the one that this run wrote")
            return snapshot.tensors(profile_file(profile))
        except DamagedCheckpoint as error:
            how = str(error).partition("damage: ")[2].partition(". Fix: ")[0]
            raise _damaged(folder, how) from error

    def _check(self, profile: PowerProfile) -> None:
        """Raises ValueError if a profile cannot be made."""
        if (widths := self.widths) is None:
            raise ValueError(
                f"{self.checkpoint.path}: expected averages of the weights, got a checkpoint "
                "before the first one. Fix: train for more steps."
            )
        error = 0.0 if profile in self.profiles else self.combine(profile).error
        if not error <= MOST_ERROR or not math.isfinite(error):
            raise ValueError(
                f"{self.checkpoint.path}: expected a width from {widths[0]:g} to "
                f"{widths[1]:g}, which {counted(len(self.found), 'snapshot')} can make, got "
                f"{profile.name}, whose profile would be {100 * error:.0f} % off. Fix: choose one "
                "of these, or train with more snapshots (--trainer.ema.snapshots)."
            )


def _damaged(folder: Path, how: str) -> ValueError:
    return ValueError(
        f"{folder}: expected a snapshot of averaged weights, got damage: {how}. "
        "Fix: copy it again, or delete it to do without."
    )
