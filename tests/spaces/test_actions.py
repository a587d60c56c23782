"""`ActionSpace`: limits of the training data, and actions relative to an observation."""

import math

import pytest
import torch

from diffusion_framework.spaces import ActionSpace, DataSpace, Normalizer
from diffusion_framework.storage.config import from_config, to_config

SHAPE = (5, 2)


def batches(count=20):
    torch.manual_seed(0)
    state = torch.randn(count, 2, 3) * 20 + 50
    actions = state[:, -1:, :2] + torch.randn(count, *SHAPE) * torch.tensor([3.0, 0.1])
    return actions, {"observations": {"state": state}}


def fitted(**options):
    space = ActionSpace(**options)
    space.build(SHAPE)
    actions, condition = batches()
    for part in torch.arange(20).split(6):
        space.observe(
            actions[part], {"observations": {"state": condition["observations"]["state"][part]}}
        )
    space.finish()
    return space


def test_limits_go_to_the_ends_over_all_steps():
    space = fitted()
    actions, condition = batches()
    x0 = space.encode(actions, condition)
    torch.testing.assert_close(x0.amax((0, 1)), torch.ones(2))
    torch.testing.assert_close(x0.amin((0, 1)), -torch.ones(2))
    assert space.bounds == (-1, 1) and space.sigma_data == 0.5
    torch.testing.assert_close(space.decode(x0, condition), actions)


def test_relative_actions_have_limits_at_each_step_and_move_with_their_origin():
    space = fitted(relative_to="state")
    actions, condition = batches()
    x0 = space.encode(actions, condition)
    torch.testing.assert_close(x0.amax(0), torch.ones(SHAPE))
    torch.testing.assert_close(x0.amin(0), -torch.ones(SHAPE))
    torch.testing.assert_close(space.decode(x0, condition), actions)
    newest = actions - condition["observations"]["state"][:, 1:2, :2]
    offset, scale = space.normalizer.statistics("action")
    torch.testing.assert_close(offset + scale, newest.amax(0))
    torch.testing.assert_close(offset - scale, newest.amin(0))
    moved = {"observations": {"state": condition["observations"]["state"] + 100}}
    torch.testing.assert_close(space.decode(x0, moved), actions + 100)
    torch.testing.assert_close(space.encode(actions + 100, moved), x0, atol=1e-4, rtol=0)


def test_gaussian_actions_are_unbounded():
    space = fitted(normalizer=Normalizer(modes={"action": "gaussian"}))
    actions, condition = batches()
    x0 = space.encode(actions, condition)
    assert space.bounds is None and space.sigma_data == 1
    torch.testing.assert_close(x0.std((0, 1), correction=0), torch.ones(2))


def test_a_state_dict_brings_the_statistics_back():
    known, space = fitted(relative_to="state"), ActionSpace(relative_to="state")
    space.build(SHAPE)
    actions, condition = batches()
    assert space.needs_fit
    with pytest.raises(ValueError, match="Expected statistics of the training data, got none yet"):
        space.encode(actions, condition)
    space.load_state_dict(known.state_dict())
    assert not space.needs_fit and torch.equal(
        space.encode(actions, condition), known.encode(actions, condition)
    )


def test_the_density_changes_by_the_slope():
    """Uniform actions between limits a and b have log2(b - a) bits; uniform x0 on [-1, 1] has 1."""
    space = fitted()
    actions, _ = batches()
    width = (actions.amax((0, 1)) - actions.amin((0, 1))).double()
    assert 1 + space.bits_offset() == pytest.approx(float(width.log2().mean()), abs=1e-6)


def test_another_device_is_not_waited_for():
    with torch.device("meta"):
        space = ActionSpace(relative_to="state")
        space.build(SHAPE)
        condition = {"observations": {"state": torch.empty(4, 2, 3)}}
        x0 = space.encode(torch.empty(4, *SHAPE), condition)
        assert space.decode(x0, condition).shape == (4, *SHAPE)


def test_it_is_rebuilt_from_its_config():
    space = ActionSpace("state", normalizer=Normalizer(mode="gaussian"))
    again = from_config(to_config(space), DataSpace)
    assert to_config(again) == to_config(space) and again.bounds is None


def test_bad_input_is_named():
    space = fitted(relative_to="state")
    actions, condition = batches()
    with pytest.raises(
        ValueError, match="Expected observations of 'state', .*, got none. Fix: pass this"
    ):
        space.encode(actions, {})
    with pytest.raises(
        ValueError, match=r"Expected 'state' \[batch, steps, at least 2\], got \[20, 2, 1\]"
    ):
        space.encode(actions, {"observations": {"state": torch.zeros(20, 2, 1)}})
    actions[7, 1, 0] = math.nan
    with pytest.raises(ValueError, match="Expected finite data, got nan to nan in sample 7"):
        space.encode(actions, condition)
    with pytest.raises(
        ValueError, match=r"Expected samples of shape \(horizon, action_dim\), got \(1, 8, 8\)"
    ):
        ActionSpace().build((1, 8, 8))
    with pytest.raises(ValueError, match="Expected a normalizer without angles"):
        ActionSpace(normalizer=Normalizer(angles={"action": [0]}))
