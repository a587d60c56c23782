"""What a controller takes as observations."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from demonstrations import behaviour_cloning, diffusion_policy, fitted

from diffusion_framework import Controller, DiffusionPolicy, Trainer
from diffusion_framework.conditions import Observations
from diffusion_framework.models import ResidualMLP
from diffusion_framework.policies import Episodes, EpisodeWindows
from diffusion_framework.spaces import Normalizer
from diffusion_framework.storage.config import from_config, to_config

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (40, 3, 40, 36)).astype(np.uint8)
STATES = RNG.normal(size=(40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def policy():
    arrays = {"camera": FRAMES, "state": STATES, "action": STATES[:, :2]}
    data = EpisodeWindows(
        Episodes(arrays, [20, 40]), observations=["camera", "state"], horizon=8, action_steps=4
    )
    seen = Observations({"state": 3}, {"camera": 3}, keypoints=2)
    network = ResidualMLP(8, 2, 2, seen.numbers, dim=16, depth=1)
    torch.nn.init.normal_(network.layer_out.weight, std=0.1)
    return fitted(DiffusionPolicy(network, seen, action_steps=4, plan_steps=2), data).eval()


def act(policy, **observation):
    return Controller(policy).act({"state": STATES[0], "camera": FRAMES[0], **observation}, seed=3)


def test_frames_may_be_bytes_or_floats_with_channels_first_or_last(policy):
    expected = act(policy)
    frame = FRAMES[0]
    for same in (frame.transpose(1, 2, 0), torch.from_numpy(frame), frame.tolist()):
        given = np.array(same, np.uint8) if isinstance(same, list) else same
        assert torch.equal(act(policy, camera=given), expected)
    for same in (frame / 255, (frame / 255).astype(np.float32).transpose(1, 2, 0)):
        torch.testing.assert_close(act(policy, camera=same), expected)


def test_streams_that_the_policy_does_not_use_are_ignored(policy):
    extra = {"text": "push the block", "depth": np.zeros((5, 5)), "arm": None}
    assert torch.equal(act(policy, **extra), act(policy))
    observed = {"state": STATES[None, :2], "camera": FRAMES[None, :2]}
    plans = [policy.plan({**observed, **more}, seed=3) for more in ({}, extra)]
    assert torch.equal(*plans)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            FRAMES[0].astype(np.float32),
            r"'camera' in \[0, 1\], got 0 to 255 in sample 0 .* Fix: pass",
        ),
        (FRAMES[0] / 127.5 - 1, r"'camera' in \[0, 1\], got -1 to 1"),
        (np.full((3, 40, 36), np.nan), r"'camera' in \[0, 1\], got nan"),
        ("cat.png", "numbers in 'camera', got 'cat.png'"),
    ],
)
def test_frames_of_another_range_are_refused(policy, frame, message):
    with pytest.raises(ValueError, match=message):
        act(policy, camera=frame)


@pytest.mark.parametrize("frames", [FRAMES / 127.5 - 1, FRAMES * 4.1])
def test_training_refuses_frames_of_another_range_at_the_start(policy, frames, tmp_path):
    arrays = {"camera": frames, "state": STATES, "action": STATES[:, :2]}
    data = EpisodeWindows(
        Episodes(arrays, [20, 40]), observations=["camera", "state"], horizon=8, action_steps=4
    )
    with pytest.raises(ValueError, match=r"'camera' in \[0, 1\], got .*ranges={'camera': .lowest"):
        Trainer(policy, data, train_batch_size=4, results_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ranges_are_recorded_and_read():
    seen = Observations(images={"depth": 1}, ranges={"depth": (0, 4000)}, keypoints=2)
    again = from_config(json.loads(json.dumps(to_config(seen))), Observations)
    assert again.spaces["depth"].value_range == (0.0, 4000.0)
    for kind in (np.uint16, np.float64):
        frames = np.full((1, 2, 1, 40, 40), 1000, kind)
        assert torch.isfinite(again({"depth": frames})["context"]).all()
    with pytest.raises(ValueError, match=r"'depth' in \[0, 4000\], got 5000 to 5000"):
        again({"depth": np.full((1, 2, 1, 40, 40), 5000.0)})


def test_deep_images_have_the_range_that_is_given():
    """1,000 of 4,000 millimetres are a quarter of the range, in any dtype."""
    seen = Observations(images={"depth": 1}, ranges={"depth": (0, 4000)}, steps=1, keypoints=2)
    depth = torch.full((1, 1, 1, 40, 40), 1000)
    encoded = [seen.spaces["depth"].encode(depth.to(t), {}) for t in (torch.uint16, torch.float64)]
    assert all((one == -0.5).all() for one in encoded)
    streams, _ = seen.newest({"depth": np.full((40, 40, 1), 1000, np.uint16)})
    assert streams["depth"].shape == (1, 1, 40, 40)
    with pytest.raises(ValueError, match=r"'depth' in \[0, 4000\], got 5000 to 5000"):
        seen.newest({"depth": np.full((1, 40, 40), 5000, np.uint16)})
    with pytest.raises(ValueError, match="ranges of image streams .*, got .'cam'"):
        Observations(images={"depth": 1}, ranges={"cam": (0, 1)})


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"state": STATES[:1]}, r"number of environments .* camera \[3, 40, 36\], state \[1, 3\]"),
        ({"state": STATES[:2], "camera": FRAMES[:3]}, "same number of environments in all streams"),
        ({"camera": FRAMES[0, 0]}, r"'camera' \[3, height, width\] or .* got \[40, 36\]. Fix"),
        ({"camera": FRAMES[0, :1]}, r"'camera' \[3, height, width\] or .* got \[1, 40, 36\]"),
        ({"camera": FRAMES[None, :2]}, r"got \[1, 2, 3, 40, 36\]. Fix: pass the newest"),
        ({"state": 1.0}, r"'state' \[3\] or \[environments, 3\], got \[\]"),
        ({"state": np.zeros(4)}, r"'state' \[3\] or \[environments, 3\], got \[4\]"),
        ({"state": [0, float("nan"), 0]}, "finite numbers in 'state'"),
    ],
)
def test_observations_of_another_shape_are_refused(policy, observation, message):
    with pytest.raises(ValueError, match=message):
        act(policy, **observation)


def test_streams_of_different_lengths_are_refused(policy):
    observed = {"state": STATES[None, :2], "camera": np.stack([FRAMES[:2]] * 2)}
    with pytest.raises(ValueError, match="Expected the same number of samples in all streams"):
        policy.plan(observed)


def test_observations_keep_their_form_between_steps(policy):
    """Else a float frame would be cut to the bytes of the frame before it."""
    controller = Controller(policy)
    first = {"state": STATES[0], "camera": FRAMES[0]}
    controller.act(first)
    small = {"state": STATES[0], "camera": FRAMES[0, :, :32]}
    for other in ({**first, "camera": FRAMES[0] / 255}, small):
        with pytest.raises(ValueError, match="'camera' as before, .3, 40, 36. of torch.uint8, got"):
            controller.act(other)
    controller.reset()
    controller.act(small)


def test_whole_numbers_at_the_first_step_do_not_cut_later_ones():
    policy = diffusion_policy()
    states = [np.array([50, 50, 50]), np.array([50.5, 49.75, 50.25])]
    whole, real = Controller(policy), Controller(policy)
    for step, state in enumerate(states):
        one = whole.act({"state": state}, seed=step)
        other = real.act({"state": state.astype(np.float64)}, seed=step)
        torch.testing.assert_close(one, other)
        assert whole._observed["state"][0, -1].tolist() == state.tolist()


def test_a_seed_is_one_number_or_one_for_each_environment():
    states = torch.zeros(2, 3)
    for policy in (diffusion_policy(), behaviour_cloning()):
        one, same = (Controller(policy).act({"state": states}, seed=s) for s in (3, np.int64(3)))
        assert torch.equal(one, same)
    policy = diffusion_policy()
    first = Controller(policy).act({"state": states[:1]}, seed=3)
    torch.testing.assert_close(Controller(policy).act({"state": states}, seed=3)[:1], first)
    with pytest.raises(ValueError, match="one seed for each of 2 environments, got 3"):
        Controller(policy).act({"state": states}, seed=[1, 2, 3])


def test_plans_come_from_arrays_and_lists():
    for policy in (diffusion_policy(relative_to="state"), behaviour_cloning()):
        seen = torch.randn(2, 2, 3)
        expected = policy.plan({"state": seen}, seed=3)
        for same in (seen.numpy(), seen.tolist()):
            assert torch.equal(policy.plan({"state": same}, seed=np.int64(3)), expected)


def test_a_number_that_only_jitters_is_not_scaled_up():
    rows = torch.stack([0.5 + 1e-6 * torch.rand(100), torch.linspace(0, 1e-3, 100)], dim=1)
    for mode in ("limits", "gaussian"):
        normalizer = Normalizer(mode)
        normalizer.fit({"state": rows})
        normal = normalizer.normalize("state", torch.tensor([[0.51, 1e-3]]))
        assert normal[0, 0] == pytest.approx(0.01, rel=1e-3) and normal[0, 1] >= 1
    small = Normalizer(smallest_range=0.0)
    small.fit({"state": rows[:, 1:] * 1e-2})
    assert small.normalize("state", rows[-1:, 1:] * 1e-2) == pytest.approx(1)


def test_acting_far_outside_of_the_demonstrations_warns_once():
    controller = Controller(diffusion_policy())
    scale, offset = 20, 50  # of the states of the demonstrations
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controller.act({"state": torch.full((3,), float(offset + 2 * scale))})
    far = torch.tensor([offset, 100.0 * offset, offset])
    with pytest.warns(UserWarning, match=r"got 5000 in number 1 of 'state', far outside"):
        controller.act({"state": far})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controller.act({"state": far})
