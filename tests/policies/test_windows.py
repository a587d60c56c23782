"""Windows, masks and splits, against a slow implementation that walks step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_framework import Episodes, EpisodeWindows
from diffusion_framework.policies.windows import split_episodes


def random_episodes(seed: int, shortest: int, longest: int = 30, count: int = 5) -> Episodes:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest, count)
    steps = int(lengths.sum())
    return Episodes({"state": rng.normal(size=(steps, 3)), "action": rng.normal(size=(steps, 2))}, np.cumsum(lengths))


def slow_windows(episodes: Episodes, horizon: int, observation_steps: int, action_steps: int):
    """One window for every step that a plan may start at, filled one step at a time."""
    begin = 0
    for end in episodes.ends.tolist():
        steps = list(range(begin, end))
        # the last window is the one of which at most action_steps - 1 actions lie behind the end
        first = -(observation_steps - 1)
        while first + horizon - len(steps) <= action_steps - 1:
            actions, mask, states = [], [], []
            for offset in range(horizon):
                at = first + offset
                there = steps[0] if at < 0 else steps[-1] if at >= len(steps) else steps[at]
                actions.append(episodes.arrays["action"][there])
                mask.append(0 <= at < len(steps))
                if offset < observation_steps:
                    states.append(episodes.arrays["state"][there])
            yield np.array(actions), np.array(mask), np.array(states)
            first += 1
        begin = end


@pytest.mark.parametrize(
    ("horizon", "observation_steps", "action_steps"), [(16, 2, 8), (8, 1, 8), (4, 3, 2), (1, 1, 1)]
)
def test_windows_equal_a_slow_implementation(horizon, observation_steps, action_steps):
    for seed in range(4):
        shortest = max(1, horizon - observation_steps - action_steps + 2)
        episodes = random_episodes(seed, shortest)
        sizes = {"horizon": horizon, "observation_steps": observation_steps, "action_steps": action_steps}
        windows = EpisodeWindows(episodes, **sizes)
        expected = list(slow_windows(episodes, **sizes))
        assert len(windows) == len(expected)
        batch_actions, batch = windows.take(np.arange(len(windows)))
        for i, (actions, mask, states) in enumerate(expected):
            drawn, condition = windows[i]
            for got, want in (
                (drawn, actions),
                (batch_actions[i], actions),
                (condition["observations"]["state"], states),
                (batch["observations"]["state"][i], states),
            ):
                assert got.dtype == torch.float32 and torch.equal(got, torch.from_numpy(want).float())
            assert condition["mask"].tolist() == batch["mask"][i].tolist() == mask.tolist()


def test_every_step_is_planned_from_once():
    episodes = random_episodes(0, 20)
    windows = EpisodeWindows(episodes, horizon=16, observation_steps=2, action_steps=8)
    current = windows.first + 1
    inside = (current >= episodes.starts[windows.episode]) & (current < episodes.ends[windows.episode])
    assert inside.all()  # the newest observation is never padding
    assert len(set(current.tolist())) == len(windows)
    # and the last ones are not planned from
    assert len(windows) == episodes.ends[-1] - len(episodes) * (16 - 2 - 8 + 1)


def test_splits_share_no_episode_and_miss_none():
    for count, share in ((10, 0.2), (7, 0.01), (3, 0.5)):
        train, held_out = (set(split_episodes(count, s, share, seed=3)) for s in ("train", "validation"))
        assert train | held_out == set(range(count)) and not train & held_out and held_out
    assert split_episodes(4, "train", 0.0, 0).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no episode of 1 is left for train"):
        split_episodes(1, "train", 0.5, 0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"action_steps": 16}, "horizon 16 has 15 actions from observation 2 on, and action_steps asks for 16"),
        ({"observation_steps": 0}, "must be at least 1"),
        ({"horizon": 32}, "episode . has .* steps, and a window needs at least 24; leave out such episodes"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(sizes, message):
    with pytest.raises(ValueError, match=message):
        EpisodeWindows(random_episodes(0, 10, longest=14), **sizes)


def test_images_become_channels_first_uint8():
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3)).astype(np.float32)  # as replay buffers hold them
    episodes = Episodes({"image": images, "action": np.zeros((12, 2))}, [12])
    _, condition = EpisodeWindows(episodes, observations=["image"])[0]
    seen = condition["observations"]["image"]
    assert seen.dtype == torch.uint8 and torch.equal(seen[1], torch.from_numpy(images[0]).byte().permute(2, 0, 1))
