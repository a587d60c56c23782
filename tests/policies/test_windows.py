"""Tests of windows, masks and splits against a slow implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_framework.policies import Episodes, EpisodeWindows
from diffusion_framework.policies.windows import split_episodes


def random_episodes(seed: int, shortest: int, longest: int = 30, count: int = 5) -> Episodes:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest, count)
    steps = int(lengths.sum())
    return Episodes(
        {"state": rng.normal(size=(steps, 3)), "action": rng.normal(size=(steps, 2))},
        np.cumsum(lengths),
    )


def slow_windows(episodes: Episodes, horizon: int, observation_steps: int, action_steps: int):
    """Yields a window for every possible start of a plan, filled one step at a time."""
    begin = 0
    for end in episodes.ends.tolist():
        steps = list(range(begin, end))
        # the last window has action_steps - 1 actions after the end of its episode
        first = -(observation_steps - 1)
        while first + horizon - len(steps) <= action_steps - 1:
            actions, mask, states = [], [], []
            for offset in range(horizon):
                at = first + offset
                step = steps[0] if at < 0 else steps[-1] if at >= len(steps) else steps[at]
                actions.append(episodes.arrays["action"][step])
                mask.append(0 <= at < len(steps))
                if offset < observation_steps:
                    states.append(episodes.arrays["state"][step])
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
        sizes = {
            "horizon": horizon,
            "observation_steps": observation_steps,
            "action_steps": action_steps,
        }
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
                assert got.dtype == torch.float32 and torch.equal(
                    got, torch.from_numpy(want).float()
                )
            assert condition["mask"].tolist() == batch["mask"][i].tolist() == mask.tolist()


def test_each_step_is_planned_from_once():
    episodes = random_episodes(0, 20)
    windows = EpisodeWindows(episodes, horizon=16, observation_steps=2, action_steps=8)
    current = windows.first + 1
    inside = (current >= episodes.starts[windows.episode]) & (
        current < episodes.ends[windows.episode]
    )
    assert inside.all()  # the newest observation is never padding
    assert len(set(current.tolist())) == len(windows)
    # no window plans from the last steps of an episode
    assert len(windows) == episodes.ends[-1] - len(episodes) * (16 - 2 - 8 + 1)


def test_splits_partition_the_episodes():
    for count, share in ((10, 0.2), (7, 0.01), (3, 0.5)):
        train, held_out = (
            set(split_episodes(count, s, share, seed=3)) for s in ("train", "validation")
        )
        assert train | held_out == set(range(count)) and not train & held_out and held_out
    assert split_episodes(4, "train", 0.0, 0).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at least one episode for the train split, got none of 1"):
        split_episodes(1, "train", 0.5, 0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"action_steps": 16},
            "action_steps of at most 15, .* observation 2 on in a plan of horizon 16, got 16",
        ),
        ({"observation_steps": 0}, "action_steps of at least 1, got 16, 0 and 8. Fix"),
        (
            {"horizon": 32},
            "Expected episodes of at least 24 steps, got .* in episode .* Fix: lower horizon",
        ),
    ],
)
def test_invalid_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        EpisodeWindows(random_episodes(0, 10, longest=14), **sizes)


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        ("uint8", torch.uint8),
        ("int64", torch.uint8),
        ("float32", torch.uint8),  # some replay buffers store floats in [0, 255]
        ("uint16", torch.uint16),
    ],
)
def test_images_keep_their_values_and_become_channels_first(stored, dtype):
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3)).astype(stored)
    seen = seen_images(images)
    assert seen.dtype == dtype
    np.testing.assert_array_equal(seen[1].numpy(), images[0].transpose(2, 0, 1))


@pytest.mark.parametrize(("stored", "factor"), [("uint16", 65000), ("int32", 65000)])
def test_deep_images_are_not_cut_to_8_bits(stored, factor):
    depth = np.full((12, 1, 6, 5), factor, dtype=stored)
    assert (seen_images(depth).numpy() == factor).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 4.7)])
def test_floats_are_stored_as_they_are(low, high):
    images = np.random.default_rng(0).uniform(low, high, (12, 3, 6, 5)).astype(np.float32)
    np.testing.assert_array_equal(seen_images(images)[1].numpy(), images[0])


def seen_images(images) -> torch.Tensor:
    episodes = Episodes({"image": images, "action": np.zeros((12, 2))}, [12])
    return EpisodeWindows(episodes, observations=["image"])[0][1]["observations"]["image"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array(["a cat"] * 12), "numbers in 'image', got <U5"),
        (np.full((12, 1, 6, 5), -3), "8 or 16 bits in 'image', got -3 to -3"),
        (np.full((12, 1, 6, 5), 70000), "8 or 16 bits in 'image', got 70000 to 70000"),
    ],
)
def test_what_is_not_an_image_or_a_vector_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        seen_images(values)


def test_names_of_streams():
    arrays = {"state": np.zeros((30, 2)), "action": np.zeros((30, 2))}
    one = EpisodeWindows(Episodes(arrays, [30]), observations="state")
    assert one.observations == ["state"]
    with pytest.raises(ValueError, match="arrays named stat, got only action, state. Fix: choose"):
        EpisodeWindows(Episodes(arrays, [30]), observations=["stat"])
    for ends in ([29.5], ["a"]):
        with pytest.raises(ValueError, match="Expected whole numbers as episode ends"):
            Episodes(arrays, ends)
    with pytest.raises(ValueError, match="30 steps in 'action', .* got a single number"):
        Episodes({"action": np.array(3.0)}, [30])


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'all', 'train' or 'validation', got 'test'. Fix"):
        EpisodeWindows(random_episodes(0, 10), split="test")
