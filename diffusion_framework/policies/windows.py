"""Windows of demonstrations: what a policy is trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data import TrainingDataset
from ..process.noise import mix
from .demonstrations import Episodes, load_episodes

Split = Literal["all", "train", "validation"]


class EpisodeWindows(TrainingDataset):
    """Windows of `horizon` actions, each with the observations of its first `observation_steps` steps.

    A window may start up to observation_steps - 1 steps before its episode and end up to action_steps - 1 steps after
    it. What lies outside repeats the first or the last step, and the mask is False there (Chi et al. 2023). So every
    step of the episode is executed in some window, but from its last horizon - observation_steps - action_steps + 1
    steps no window plans: short episodes want a short horizon.

    A sample is a pair: actions [horizon, action_dim], float32, and {"observations": {name: [observation_steps, ...]},
    "mask": [horizon]}.

    Args:
        folder: Where `load_episodes` finds them, or `Episodes`.
        observations: Names of the observation streams.
        action: Name of the actions.
        horizon: Actions of a window. scripts/train.py takes this and the next two from the policy.
        observation_steps: Observations of a window.
        action_steps: Actions of a plan that will be executed.
        split: All episodes, or those to train on or to validate with.
        validation_share: Share of the episodes that are kept for validation, in [0, 1).
        split_seed: Decides which.

    Raises:
        ValueError: options out of range, episodes that cannot be read, or one too short for a window.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Episodes,
        *,
        observations: Sequence[str] = ("state",),
        action: str = "action",
        horizon: int = 16,
        observation_steps: int = 2,
        action_steps: int = 8,
        split: Split = "all",
        validation_share: float = 0.05,
        split_seed: int = 0,
    ) -> None:
        check_windows(horizon, observation_steps, action_steps)
        self.observations, self.action = list(observations), action
        self.horizon, self.observation_steps, self.action_steps = horizon, observation_steps, action_steps
        episodes = folder if isinstance(folder, Episodes) else load_episodes(folder, [action, *observations])
        episodes = episodes.select(split_episodes(len(episodes), split, validation_share, split_seed))
        arrays = {name: _numbers_or_images(episodes.arrays[name]) for name in (action, *observations)}
        self.episodes = Episodes(arrays, episodes.ends)
        self.first, self.episode = window_starts(self.episodes, horizon, observation_steps, action_steps)

    @property
    def action_dim(self) -> int:
        """Numbers of one action."""
        return self.episodes.arrays[self.action].shape[1]

    def __len__(self) -> int:
        return len(self.first)

    def draw(self, index: int, epoch: int) -> tuple[Tensor, dict[str, Any]]:
        """Window `index`, the same in every epoch."""
        self.check_index(index)
        actions, condition = self.take(np.array([index]))
        observations = {name: values[0] for name, values in condition["observations"].items()}
        return actions[0], {"observations": observations, "mask": condition["mask"][0]}

    def take(self, indices: np.ndarray, epochs: np.ndarray | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Many windows at once, as one batch."""
        steps, starts, lasts = self._steps(indices)
        inside = np.clip(steps, starts, lasts)
        arrays = self.episodes.arrays
        seen = inside[:, : self.observation_steps]
        observations = {name: _tensor(arrays[name][seen]) for name in self.observations}
        return _tensor(arrays[self.action][inside]), {
            "observations": observations,
            "mask": torch.from_numpy((steps >= starts) & (steps <= lasts)),
        }

    def _steps(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps of windows, maybe outside their episodes, [windows, horizon]; first and last of those, [windows, 1]."""
        episode = self.episode[indices, None]
        steps = self.first[indices, None] + np.arange(self.horizon)
        return steps, self.episodes.starts[episode], self.episodes.ends[episode] - 1

    def fingerprint(self) -> str:
        return self.episodes.fingerprint()


def check_windows(horizon: int, observation_steps: int, action_steps: int) -> None:
    """Raise ValueError unless a plan from the last observation on has action_steps actions."""
    if min(horizon, observation_steps, action_steps) < 1:
        raise ValueError(
            "horizon, observation_steps and action_steps must be at least 1; got "
            f"{horizon}, {observation_steps}, {action_steps}"
        )
    if action_steps > horizon - observation_steps + 1:
        raise ValueError(
            f"a plan of horizon {horizon} has {horizon - observation_steps + 1} actions from observation "
            f"{observation_steps} on, and action_steps asks for {action_steps}; lower it or raise horizon"
        )


def split_episodes(count: int, split: Split, validation_share: float, seed: int) -> np.ndarray:
    """Sorted numbers of the episodes of a split; with a share above 0, at least one is kept for validation."""
    if not 0 <= validation_share < 1:
        raise ValueError(f"validation_share must lie in [0, 1); got {validation_share}")
    if split == "all":
        return np.arange(count)
    held_out = max(1, round(validation_share * count)) if validation_share > 0 else 0
    order = np.random.default_rng(mix(seed)).permutation(count)
    chosen = np.sort(order[:held_out] if split == "validation" else order[held_out:])
    if not len(chosen):
        raise ValueError(f"no episode of {count} is left for {split} with validation_share {validation_share}")
    return chosen


def window_starts(
    episodes: Episodes, horizon: int, observation_steps: int, action_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """First step of every window, counted over all episodes and maybe outside its own, and its episode."""
    lengths = episodes.ends - episodes.starts
    counts = lengths - horizon + observation_steps + action_steps - 1
    if (short := np.flatnonzero(counts < 1)).size:
        needed = horizon - observation_steps - action_steps + 2
        raise ValueError(
            f"episode {short[0]} has {lengths[short[0]]} steps, and a window needs at least {needed}; leave out such "
            f"episodes ({short.size} of {len(episodes)}) or lower horizon"
        )
    episode = np.repeat(np.arange(len(episodes)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return episodes.starts[episode] - (observation_steps - 1) + within, episode


def _numbers_or_images(values: np.ndarray) -> np.ndarray:
    """[steps, numbers], or uint8 images [steps, channels, height, width] where each step has three dimensions."""
    if values.ndim != 4:
        return values.reshape(len(values), -1)
    if values.dtype != np.uint8:  # replay buffers hold 0..255 as floats as well
        values = (values if values.max() > 1 else values * 255).round().astype(np.uint8)
    channels_last = values.shape[3] in (1, 3, 4) and values.shape[1] not in (1, 3, 4)
    return values.transpose(0, 3, 1, 2) if channels_last else values


def _tensor(values: np.ndarray) -> Tensor:
    """Images stay uint8; all else becomes float32."""
    return torch.from_numpy(values if values.dtype == np.uint8 else values.astype(np.float32))
