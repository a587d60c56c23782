"""Tests of `BehaviourCloning`, which learns the mean of the demonstrations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from demonstrations import batch, behaviour_cloning, fitted, observations

from diffusion_framework.models import Transformer1D
from diffusion_framework.policies import BehaviourCloning, Episodes, EpisodeWindows, Policy
from diffusion_framework.spaces import ActionSpace
from diffusion_framework.storage.config import from_config, to_config


def test_it_learns_the_mean_of_the_experts():
    """Mean squared error averages two opposite experts in the same state."""
    rng = np.random.default_rng(0)
    side = np.repeat(rng.permutation([-1.0, 1.0] * 20), 10)[:, None]
    data = EpisodeWindows(
        Episodes(
            {"state": np.zeros((400, 3)), "action": np.hstack([side, side])}, np.arange(10, 401, 10)
        ),
        horizon=8,
        action_steps=4,
    )
    made = fitted(behaviour_cloning(fit=False), data)
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    actions, condition = data.take(np.arange(len(data)))
    for _ in range(60):
        optimizer.zero_grad()
        made(actions, **condition).backward()
        optimizer.step()
    assert made.predict({"state": torch.zeros(1, 2, 3)}).abs().max() < 0.1


@pytest.mark.parametrize("relative_to", [None, "state"])
def test_its_loss_is_the_error_of_its_plans_in_the_units_of_the_network(relative_to):
    made = behaviour_cloning(space=ActionSpace(relative_to)).eval()
    actions, condition = batch()
    plans = made.plan(condition["observations"])
    encoded = [made.space.encode(values, condition) for values in (plans, actions)]
    error = (encoded[0] - encoded[1]).square()
    mask = torch.rand(5, 8) < 0.5
    torch.testing.assert_close(made(actions, observations=condition["observations"]), error.mean())
    masked = made(actions, observations=condition["observations"], mask=mask)
    torch.testing.assert_close(masked, (error * mask[:, :, None]).mean())
    metrics = made.validation_metrics(actions, observations=condition["observations"])
    torch.testing.assert_close(
        metrics["action_error"], (plans - actions)[:, 1:5].square().mean().sqrt()
    )
    assert tuple(metrics) == made.metric_names


def test_plans_are_deterministic_and_sampling_options_are_refused():
    made = behaviour_cloning()
    assert not {"sample", "denoiser", "walk", "bits_per_dim"} & set(dir(made))
    _, condition = batch()
    plans = [made.plan(condition["observations"], seed=seed) for seed in (None, range(5))]
    assert torch.equal(*plans)
    with pytest.raises(ValueError, match="no sampling options .*, got steps. Fix: leave them out"):
        made.plan(condition["observations"], steps=3)


def test_planning_uses_evaluation_mode_and_restores_the_mode():
    made = fitted(
        BehaviourCloning(
            Transformer1D(8, 2, 2, 3, dim=16, depth=1, dropout=0.5), observations(), action_steps=4
        )
    )
    _, condition = batch()
    for mode in (True, False):
        made.train(mode)
        assert torch.equal(
            made.plan(condition["observations"]), made.plan(condition["observations"])
        )
        assert made.training is mode and made.model.training is mode


def test_it_is_rebuilt_from_its_config():
    made = behaviour_cloning(space=ActionSpace("state"))
    again = from_config(to_config(made), Policy)
    again.load_state_dict(made.state_dict())
    _, condition = batch()
    assert to_config(again) == to_config(made)
    assert torch.equal(made.plan(condition["observations"]), again.plan(condition["observations"]))
    with pytest.raises(ValueError, match="action_steps of at most 7, .*, got 8"):
        behaviour_cloning(action_steps=8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_runs_in_every_dtype(dtype):
    made = behaviour_cloning().to(dtype)
    actions, condition = batch()
    made(actions, **condition).backward()
    assert torch.isfinite(made.plan(condition["observations"])).all()
