"""Tests of `Controller`, which plans every action_steps from the latest observations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from demonstrations import behaviour_cloning, diffusion_policy, fitted
from toys import tiny_unet

from diffusion_framework import Controller, DiffusionPolicy
from diffusion_framework.conditions import Observations
from diffusion_framework.models import ResidualMLP


@pytest.mark.parametrize("make", [diffusion_policy, behaviour_cloning])
@pytest.mark.parametrize("several", [False, True])
def test_actions_come_from_plans_made_every_action_steps(make, several):
    policy = make()
    controller = Controller(policy)
    states = torch.randn(11, 3, 3) * 20 + 50  # steps, environments
    acted = []
    for t, state in enumerate(states):
        chosen = {"state": state} if several else {"state": state[0].numpy()}
        seeds = [100 * t + i for i in range(3 if several else 1)]
        acted.append(controller.act(chosen, seed=seeds))
    for i in range(3 if several else 1):
        for t in range(11):
            planned = t - t % 4
            seen = states[[max(0, planned - 1), planned], i][None]
            expected = policy.predict({"state": seen}, seed=[100 * planned + i])[0, t - planned]
            torch.testing.assert_close(acted[t][i] if several else acted[t], expected)


def test_environments_are_reset_one_by_one():
    policy = diffusion_policy()
    controller = Controller(policy)
    states = torch.randn(6, 2, 3) * 20 + 50
    seeds = lambda t: [t, 50 + t]  # noqa: E731
    for t in range(3):
        controller.act({"state": states[t]}, seed=seeds(t))
    controller.reset([False, True])
    actions = controller.act({"state": states[3]}, seed=seeds(3))
    first = policy.predict({"state": states[[0, 0], 0][None]}, seed=[0])
    second = policy.predict({"state": states[[3, 3], 1][None]}, seed=[53])
    torch.testing.assert_close(actions, torch.stack([first[0, 3], second[0, 0]]))
    with pytest.raises(
        ValueError, match=r"observations of 2 environments, as before, got 1. Fix: call reset\(\)"
    ):
        controller.act({"state": states[3, :1]})
    controller.reset()
    assert controller.act({"state": states[3, :1]}).shape == (1, 2)


def test_controllers_of_one_policy_are_independent():
    policy = diffusion_policy()
    one, two = Controller(policy), Controller(policy, steps=2)
    states = np.random.default_rng(0).normal(50, 20, (2, 3))
    for state in states:
        one.act({"state": state}, seed=[0])
    action = two.act({"state": states[1]}, seed=[7])
    seen = torch.from_numpy(states[[1, 1]])[None]
    torch.testing.assert_close(action, policy.predict({"state": seen}, seed=[7], steps=2)[0, 0])


def test_a_warm_start_begins_with_the_tail_of_the_last_plan():
    policy = diffusion_policy(relative_to="state")
    controller = Controller(policy, warm_start=0.5)
    states = [torch.randn(1, 3) * 20 + 50 for _ in range(5)]
    first = policy.plan({"state": torch.stack([states[0], states[0]], dim=1)}, seed=[0])
    for t, state in enumerate(states):
        action = controller.act({"state": state}, seed=[t])
    tail = torch.cat([first[:, 4:], first[:, -1:].expand(-1, 4, -1)], dim=1)
    seen = {"state": torch.stack([states[3], states[4]], dim=1)}
    expected = policy.predict(seen, seed=[4], start=tail, strength=0.5)[:, 0]
    torch.testing.assert_close(action, expected)
    # with almost no noise, the plan hardly changes
    near = policy.plan(seen, start=tail, strength=1e-3, steps=1000, seed=[4])
    space, condition = policy.diffusion.space, {"observations": seen}
    bounded = space.decode(space.encode(tail, condition).clamp(-1, 1), condition)
    assert (near - bounded).abs().max() < 0.1 * (policy.plan(seen, seed=[4]) - bounded).abs().max()


@pytest.mark.parametrize("calls", [1, 2])
def test_a_flow_map_plans_in_few_calls_from_noise_and_from_the_last_plan(calls):
    policy = diffusion_policy(loss="flow_map", noise_schedule="flow", objective="velocity")
    called = []
    policy.model.register_forward_hook(lambda *_: called.append(1))
    controller = Controller(policy, warm_start=0.4, calls=calls)
    states = [torch.randn(1, 3) * 20 + 50 for _ in range(5)]
    actions = [controller.act({"state": state}, seed=[t]) for t, state in enumerate(states)]
    assert len(called) == calls + 1  # the warm start lies below the second level
    first = policy.plan({"state": torch.stack([states[0]] * 2, dim=1)}, seed=[0], calls=calls)
    torch.testing.assert_close(torch.stack(actions[:4], dim=1), first[:, policy.executed])
    tail = torch.cat([first[:, 4:], first[:, -1:].expand(-1, 4, -1)], dim=1)
    seen = {"state": torch.stack([states[3], states[4]], dim=1)}
    expected = policy.predict(seen, seed=[4], start=tail, strength=0.4, calls=calls)[:, 0]
    torch.testing.assert_close(actions[4], expected)
    # a jump from almost no noise hardly changes the plan
    space, condition = policy.diffusion.space, {"observations": seen}
    bounded = space.decode(space.encode(tail, condition).clamp(-1, 1), condition)
    near = policy.plan(seen, start=tail, strength=1e-3, calls=calls, seed=[4])
    far = policy.plan(seen, seed=[4], calls=calls)
    assert (near - bounded).abs().max() < 0.02 * (far - bounded).abs().max()


def test_a_flow_map_takes_guidance():
    seen = {"state": torch.randn(2, 2, 3) * 20 + 50}
    given = Observations({"state": 3}, dropout=0.1)
    network = ResidualMLP(8, 2, 2, 3, dim=16, depth=1, second_time=True)
    torch.nn.init.normal_(network.layer_out.weight)
    options = {"loss": "flow_map", "noise_schedule": "flow", "action_steps": 4}
    policy = fitted(DiffusionPolicy(network, given, **options))
    plain, same, guided = (
        policy.plan(seen, calls=1, seed=0, guidance=scale, clip_denoised=False)
        for scale in (None, 1.0, 3.0)
    )
    unconditional = policy.plan(seen, calls=1, seed=0, guidance=0.0, clip_denoised=False)
    torch.testing.assert_close(same, plain)
    # from pure noise, a jump is linear in what the network says
    wanted = unconditional + 3 * (plain - unconditional)
    assert not torch.allclose(guided, plain)
    torch.testing.assert_close(guided, wanted, rtol=1e-4, atol=1e-3)


def test_invalid_controllers_and_observations_are_refused():
    with pytest.raises(ValueError, match="Expected a policy with observations, got one without"):
        Controller(DiffusionPolicy(tiny_unet()))
    for warm_start in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"warm_start in \(0, 1\] .*, got {warm_start}"):
            Controller(diffusion_policy(), warm_start=warm_start)
    with pytest.raises(
        ValueError,
        match="for a policy that samples, got 0.5 for BehaviourCloning. Fix: leave it out",
    ):
        Controller(behaviour_cloning(), warm_start=0.5)
    with pytest.raises(ValueError, match=r"observations \['state'\], got none for \['state'\]"):
        Controller(diffusion_policy()).act({"arm": torch.zeros(3)})
    with pytest.raises(ValueError, match="an option or a condition, got 'sampelr'. Fix: write"):
        Controller(diffusion_policy(), sampelr="ddim")
    with pytest.raises(ValueError, match="no sampling options for BehaviourCloning"):
        Controller(behaviour_cloning(), steps=3)


@pytest.mark.parametrize("which", [[True], [1, 0], [1], [True] * 3, torch.ones(2)])
def test_resets_name_each_environment(which):
    controller = Controller(diffusion_policy())
    controller.act({"state": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="one boolean for each of 2 environments, got"):
        controller.reset(which)
