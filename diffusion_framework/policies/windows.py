"""`EpisodeWindows`, the training dataset of policies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import torch
from torch import Tensor

from ..data import TrainingDataset
from ..process.noise import mix
from .demonstrations import load_episodes
from .episodes import Episodes, check_names

Split = Literal["all", "train", "validation"]


class EpisodeWindows(TrainingDataset):
    """Windows of actions, with the observations of their first steps (Chi et al. 2023).

    A window may start up to observation_steps - 1 steps before its episode and end up to
    action_steps - 1 steps after it. Steps outside the episode repeat its first or last step and
    have mask False. Every step of an episode is therefore executed in some window. However, no
    window plans from the last horizon - observation_steps - action_steps + 1 steps, so short
    episodes need a short horizon.

    A sample is a pair of actions [horizon, action_dim], float32, and a dictionary:

        observations   {name: [observation_steps, ...]}
        mask           [horizon], False for padding

    Args:
        folder: Demonstrations: a `.npz` file or a folder of them, a zarr replay buffer, a LeRobot
            dataset, or `Episodes`.
        observations: Names of the observation streams.
        action: Name of the actions.
        horizon: Number of actions of a window. `diffusion train` takes it from the policy.
        observation_steps: Number of observations of a window. `diffusion train` takes it from the
            policy.
        action_steps: Number of actions of a plan that are executed. `diffusion train` takes it from
            the policy.
        split: Episodes to use: 'all', 'train' or 'validation'.
        validation_share: Share of the episodes to hold out for validation, in [0, 1).
        split_seed: Seed for the choice of the validation episodes.

    Raises:
        ValueError: If an option is out of range, the episodes cannot be read, or one is too short
            for a window.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Episodes,
        *,
        observations: str | Sequence[str] = ("state",),
        action: str = "action",
        horizon: int = 16,
        observation_steps: int = 2,
        action_steps: int = 8,
        split: Split = "all",
        validation_share: float = 0.05,
        split_seed: int = 0,
    ) -> None:
        check_windows(horizon, observation_steps, action_steps)
        observations = [observations] if isinstance(observations, str) else list(observations)
        self.observations, self.action = observations, action
        self.horizon, self.observation_steps, self.action_steps = (
            horizon,
            observation_steps,
            action_steps,
        )
        names = [action, *observations]
        episodes = folder if isinstance(folder, Episodes) else load_episodes(folder, names)
        check_names(names, [*episodes.arrays], "Episodes")
        episodes = episodes.select(
            split_episodes(len(episodes), split, validation_share, split_seed)
        )
        arrays = {name: _vectors_or_images(episodes.arrays[name], name) for name in names}
        self.episodes = Episodes(arrays, episodes.ends)
        self.first, self.episode = window_starts(
            self.episodes, horizon, observation_steps, action_steps
        )

    @property
    def action_dim(self) -> int:
        """Size of one action vector."""
        return self.episodes.arrays[self.action].shape[1]

    def subset(self, indices: np.ndarray) -> NoReturn:
        """Raises ValueError, because windows of one episode are not independent."""
        raise ValueError(
            "Expected whole episodes as the validation data, got a share of their windows. "
            "Fix: give a folder of other episodes as the validation data."
        )

    def __len__(self) -> int:
        return len(self.first)

    def draw(self, index: int, epoch: int) -> tuple[Tensor, dict[str, Any]]:
        """Returns window `index`, which is the same in every epoch."""
        self.check_index(index)
        actions, condition = self.take(np.array([index]))
        observations = {name: values[0] for name, values in condition["observations"].items()}
        return actions[0], {"observations": observations, "mask": condition["mask"][0]}

    def take(
        self, indices: np.ndarray, epochs: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Returns several windows as one batch."""
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
        """Returns the steps of windows, and the first and last steps of their episodes.

        Steps have shape [windows, horizon] and may lie outside the episode; both ends of the
        episodes have shape [windows, 1].
        """
        episode = self.episode[indices, None]
        steps = self.first[indices, None] + np.arange(self.horizon)
        return steps, self.episodes.starts[episode], self.episodes.ends[episode] - 1

    def fingerprint(self) -> str:
        return self.episodes.fingerprint()


def check_windows(horizon: int, observation_steps: int, action_steps: int) -> None:
    """Checks that a plan has action_steps actions from the newest observation on.

    Raises:
        ValueError: If it has fewer, or a size is below 1.
    """
    if min(horizon, observation_steps, action_steps) < 1:
        raise ValueError(
            f"Expected horizon, observation_steps and action_steps of at least 1, got {horizon}, "
            f"{observation_steps} and {action_steps}. Fix: raise the sizes below 1."
        )
    if action_steps > (available := horizon - observation_steps + 1):
        raise ValueError(
            f"Expected action_steps of at most {available}, the number of actions from observation "
            f"{observation_steps} on in a plan of horizon {horizon}, got {action_steps}. "
            "Fix: lower action_steps or raise horizon."
        )


def split_episodes(count: int, split: Split, validation_share: float, seed: int) -> np.ndarray:
    """Returns the sorted indices of the episodes of a split.

    With a share above 0, at least one episode is held out for validation.

    Raises:
        ValueError: If the share is out of range, or the split is unknown or has no episode.
    """
    if not 0 <= validation_share < 1:
        raise ValueError(
            f"Expected validation_share in [0, 1), got {validation_share}. "
            "Fix: set validation_share=0.05."
        )
    if split not in get_args(Split):
        raise ValueError(
            f"Expected the split 'all', 'train' or 'validation', got {split!r:.60}. "
            "Fix: choose one of these."
        )
    if split == "all":
        return np.arange(count)
    held_out = max(1, round(validation_share * count)) if validation_share > 0 else 0
    order = np.random.default_rng(mix(seed)).permutation(count)
    chosen = np.sort(order[:held_out] if split == "validation" else order[held_out:])
    if not len(chosen):
        raise ValueError(
            f"Expected at least one episode for the {split} split, got none of {count} with "
            f"validation_share={validation_share}. Fix: change validation_share or add episodes."
        )
    return chosen


def window_starts(
    episodes: Episodes, horizon: int, observation_steps: int, action_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first step and the episode of each window, [windows].

    Steps are counted over all episodes; a first step may lie outside the window's own episode.

    Raises:
        ValueError: If an episode is too short for a window.
    """
    lengths = episodes.ends - episodes.starts
    counts = lengths - horizon + observation_steps + action_steps - 1
    if (short := np.flatnonzero(counts < 1)).size:
        needed = horizon - observation_steps - action_steps + 2
        raise ValueError(
            f"Expected episodes of at least {needed} steps, got {lengths[short[0]]} in episode "
            f"{short[0]}. Fix: lower horizon, or leave out the {short.size} of {len(episodes)} "
            "episodes that are shorter."
        )
    episode = np.repeat(np.arange(len(episodes)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return episodes.starts[episode] - (observation_steps - 1) + within, episode


def _vectors_or_images(values: np.ndarray, name: str) -> np.ndarray:
    """Returns an array as images, if it has four dimensions, or as vectors.

    Images have shape [steps, channels, height, width], vectors [steps, size]. Images of 8 bits in
    another dtype become uint8. All other values stay as they are.

    Raises:
        ValueError: If the array does not hold numbers, or images are integers of another range.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected numbers in {name!r}, got {values.dtype}. "
            "Fix: leave this array out, or convert it to numbers."
        )
    if values.ndim != 4:
        return values.reshape(len(values), -1)
    channels_last = values.shape[3] in (1, 3, 4) and values.shape[1] not in (1, 3, 4)
    return _image_dtype(values.transpose(0, 3, 1, 2) if channels_last else values, name)


def _image_dtype(images: np.ndarray, name: str) -> np.ndarray:
    """Returns images with the same values in a dtype that tells their range."""
    if images.dtype in (np.uint8, np.uint16) or not images.size:
        return images
    low, high = images.min(), images.max()
    if images.dtype.kind == "f":
        if high <= 1 or low < 0 or high > 255 or (images % 1).any():
            return images  # their range is checked when they are encoded
        return images.astype(np.uint8)  # some replay buffers store floats in [0, 255]
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(
            f"Expected images of 8 or 16 bits in {name!r}, got {low} to {high}. "
            "Fix: store them as floats in [0, 1]."
        )
    return images.astype(np.uint8 if high <= 255 else np.uint16)


def _tensor(values: np.ndarray) -> Tensor:
    """Converts an array to a tensor; images of integers stay so, other values become float32."""
    is_image = values.dtype in (np.uint8, np.uint16) and values.ndim == 5
    return torch.from_numpy(values if is_image else values.astype(np.float32))
