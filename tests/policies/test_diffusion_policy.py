"""Tests of `DiffusionPolicy`, which plans with its diffusion model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from demonstrations import (
    batch,
    behaviour_cloning,
    diffusion_policy,
    episodes,
    fitted,
    network,
    observations,
    windows,
)
from toys import QUIET, tiny_unet

from diffusion_framework import DDPM, DiffusionPolicy, GaussianDiffusion, Heun, Trainer
from diffusion_framework.conditions import Observations
from diffusion_framework.evaluation import bits_per_dim, flow_bits_per_dim
from diffusion_framework.losses import VariationalLoss
from diffusion_framework.models import ResidualMLP, Transformer1D, UNet1D
from diffusion_framework.policies import BehaviourCloning, Episodes, EpisodeWindows, Policy
from diffusion_framework.spaces import ActionSpace
from diffusion_framework.storage.config import from_config, to_config


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_observations_it_is_its_diffusion_model():
    unet, images = tiny_unet(), torch.rand(3, 1, 8, 8)
    one, other = DiffusionPolicy(unet, timesteps=4), GaussianDiffusion(unet, timesteps=4)
    assert torch.equal(one(images, generator=generator()), other(images, generator=generator()))
    samples = [d.sample(2, seed=0, show_progress=False) for d in (one, other)]
    assert torch.equal(*samples) and samples[0].shape == (2, 1, 8, 8)
    metrics = one.validation_metrics(images, generator=generator())
    assert tuple(metrics) == one.metric_names == ("validation_loss",)
    assert one.previews(2, seeds=[0, 1], steps=2).shape == (2, 1, 8, 8)
    with pytest.raises(
        ValueError, match="Expected a policy with observations, got one without. Fix: build it"
    ):
        one.predict({"state": torch.zeros(1, 2, 3)})


def test_a_network_is_wrapped_and_a_diffusion_is_used_unchanged():
    wrapped = diffusion_policy(objective="x0", relative_to="state")
    made = GaussianDiffusion(
        wrapped.diffusion.model,
        timesteps=100,
        objective="x0",
        space=ActionSpace("state"),
        conditions={"observations": observations()},
    )
    taken = fitted(DiffusionPolicy(made, action_steps=4, plan_steps=4))
    assert taken.diffusion is made
    assert to_config(taken) == to_config(wrapped)
    actions, condition = batch()
    losses = [p(actions, generator=generator(), **condition) for p in (wrapped, taken)]
    assert torch.equal(*losses)
    for options in ({"observations": observations()}, {"objective": "v"}):
        with pytest.raises(
            ValueError,
            match=f"a diffusion without options of its parts, got {next(iter(options))}",
        ):
            DiffusionPolicy(made, **options)


def test_a_policy_has_no_image_functions_and_samples_only_with_observations():
    """A policy has no functions for 8-bit images, and its samples are its plans."""
    made = diffusion_policy()
    assert not {"bits_per_dim", "flow_bits_per_dim", "invert", "decode", "interpolate"} & set(
        dir(made)
    )
    _, condition = batch()
    same = {"seed": list(range(5)), "steps": 4}
    planned = made.plan(condition["observations"], **same)
    sampled = made.sample(5, observations=condition["observations"], show_progress=False, **same)
    assert torch.equal(planned, sampled)
    with pytest.raises(ValueError, match="Expected a value for observations"):
        made.sample(5, show_progress=False)


@pytest.mark.parametrize("make", [diffusion_policy, behaviour_cloning])
def test_what_makes_no_sense_of_a_policy_cannot_be_said(make):
    """Actions are not 8-bit images, and a cloned network has never seen noise."""
    policy = make()
    actions, condition = batch()
    for function in (bits_per_dim, flow_bits_per_dim):
        with pytest.raises((ValueError, AttributeError)):
            function(policy, actions, **condition)
    for name in ("walk", "trajectory", "denoiser", "to_images", "from_images"):
        assert name not in dir(policy)
    if isinstance(policy, BehaviourCloning):
        assert "sample" not in dir(policy)
    else:
        known = {"observations": condition["observations"]}
        with pytest.raises(ValueError, match="bins for bits per dimension, got ActionSpace"):
            bits_per_dim(policy.diffusion, actions, **known)


def test_steps_are_whole_numbers():
    """Else a run would end at its first validation."""
    for make in (diffusion_policy, behaviour_cloning):
        with pytest.raises(ValueError, match="an integer for action_steps, got 2.5"):
            make(action_steps=2.5)
    with pytest.raises(ValueError, match="an integer for plan_steps, got 2.5"):
        diffusion_policy(plan_steps=2.5)
    assert diffusion_policy(action_steps=np.int64(4)).action_steps == 4


def test_samples_of_a_policy_are_clipped_as_its_plans_are():
    policy = diffusion_policy()
    torch.nn.init.normal_(policy.model.layer_out.weight, std=20)
    _, condition = batch()
    space, told = policy.diffusion.space, {"observations": condition["observations"]}
    for options, bounded in (({}, True), ({"clip_denoised": False}, False)):
        planned = policy.plan(condition["observations"], seed=0, **options)
        sampled = policy.sample(5, seed=0, steps=4, show_progress=False, **told, **options)
        assert torch.equal(planned, sampled)
        assert (space.encode(planned, told).abs().max() < 1.001) == bounded


@pytest.mark.parametrize("network", [UNet1D, Transformer1D, ResidualMLP])
@pytest.mark.parametrize(("objective", "sampler"), [("v", None), ("eps", DDPM()), ("x0", Heun())])
def test_every_network_trains_and_samples_with_every_objective(network, objective, sampler):
    sizes = {"down_dims": (8, 16)} if network is UNet1D else {"dim": 16, "depth": 2}
    made = fitted(
        DiffusionPolicy(
            network(8, 2, 2, 3, self_condition=True, **sizes),
            observations(),
            action_steps=4,
            objective=objective,
        )
    )
    actions, condition = batch()
    made(actions, self_condition_draw=0.0, **condition).backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)
    options = {"sampler": sampler, "steps": 3} if sampler else {"steps": 3}
    plans = made.plan(condition["observations"], **options)
    assert plans.shape == (5, 8, 2) and torch.isfinite(plans).all()
    twice = [made.plan(condition["observations"], seed=range(5)) for _ in range(2)]
    assert torch.equal(*twice)


def test_padding_is_ignored_and_other_steps_have_equal_weight():
    made = diffusion_policy()
    actions, condition = batch()
    loss = lambda actions, mask: made(  # noqa: E731
        actions, generator=generator(), observations=condition["observations"], mask=mask
    )
    mask = torch.rand(5, 8) < 0.6
    with torch.no_grad():
        for step in range(8):  # the loss is a sum over episode steps, some of which are masked
            only = torch.zeros(5, 8, dtype=torch.bool)
            only[:, step] = True
            mask_parts = [loss(actions, mask & only), loss(actions, ~mask & only)]
            torch.testing.assert_close(sum(mask_parts), loss(actions, only))
        assert loss(actions, torch.zeros(5, 8, dtype=torch.bool)) == 0
        torch.testing.assert_close(
            loss(actions, torch.ones(5, 8, dtype=torch.bool)), loss(actions, None)
        )
    made.zero_grad()
    loss(actions, mask & False).backward()
    assert all((p.grad == 0).all() for p in made.parameters() if p.grad is not None)


def test_the_executed_slice_starts_at_the_newest_observation():
    made = diffusion_policy()
    _, condition = batch()
    plans, actions = (
        f(condition["observations"], seed=range(5)) for f in (made.plan, made.predict)
    )
    assert torch.equal(actions, plans[:, 1:5])


def test_a_plan_depends_on_its_own_seed_and_observations_alone():
    made = diffusion_policy()
    _, condition = batch()
    plans = made.plan(condition["observations"], seed=[3, 1, 4, 1, 5])
    alone = made.plan({"state": condition["observations"]["state"][2:3]}, seed=[4])
    torch.testing.assert_close(plans[2:3], alone)


def test_several_streams_and_images():
    seen = Observations({"arm": 3, "block": 2}, {"camera": 3}, keypoints=4, crop=56)
    made = DiffusionPolicy(
        ResidualMLP(8, 2, 2, seen.numbers, dim=16, depth=1), seen, action_steps=4
    )
    rng = np.random.default_rng(0)
    arrays = {
        "camera": rng.integers(0, 256, (24, 64, 64, 3), dtype=np.uint8),
        "arm": rng.normal(size=(24, 3)),
        "block": rng.normal(size=(24, 2)),
        "action": rng.normal(size=(24, 2)),
    }
    data = EpisodeWindows(
        Episodes(arrays, [12, 24]),
        observations=["camera", "arm", "block"],
        horizon=8,
        action_steps=4,
    )
    fitted(made, data)
    actions, condition = data.take(np.arange(3))
    torch.nn.init.normal_(made.diffusion.model.layer_out.weight)
    loss = made(actions, **condition)
    loss.backward()
    assert torch.isfinite(loss) and seen.networks[0][0].weight.grad.abs().max() > 0
    streams = condition["observations"]
    order = {name: streams[name] for name in ("block", "camera", "arm")}
    assert torch.equal(made.plan(streams, seed=range(3)), made.plan(order, seed=range(3)))


def test_training_fits_the_statistics_and_a_checkpoint_restores_them(tmp_path):
    made = diffusion_policy(fit=False, relative_to="state")
    options = {"train_batch_size": 4, "results_folder": tmp_path / "run", **QUIET}
    Trainer(made, windows(), train_num_steps=2, **options).train()
    by_hand = diffusion_policy(relative_to="state")
    for ours, hand in zip(
        made.diffusion.space.buffers(), by_hand.diffusion.space.buffers(), strict=True
    ):
        assert torch.equal(ours.cpu(), hand)
    loaded = DiffusionPolicy.from_pretrained(tmp_path / "run", weights="model")
    _, condition = batch()
    plans = [p.plan(condition["observations"], seed=range(5)) for p in (made, loaded)]
    assert torch.equal(*plans)
    assert type(Policy.from_pretrained(tmp_path / "run")) is DiffusionPolicy
    before = {name: value.clone() for name, value in loaded.named_buffers()}
    # Fitting again must keep the statistics with which the weights were trained.
    fitted(loaded, EpisodeWindows(episodes(3), horizon=8, action_steps=4))
    assert all(torch.equal(value, before[name]) for name, value in loaded.named_buffers())


def test_a_network_given_on_opening_replaces_that_of_the_diffusion(tmp_path):
    """The schedule, the objective and the space stay those of the run."""

    class Net(torch.nn.Module):  # does not record its arguments
        sample_shape = (8, 2)

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x, time, context):
            return self.layer(x)

    options = {"objective": "x0", "noise_schedule": "cosine", "action_steps": 4}
    made = DiffusionPolicy(Net(), observations(), **options)
    fitted(made)
    made.save_pretrained(tmp_path / "export")
    with pytest.raises(ValueError, match="model="):
        DiffusionPolicy.from_pretrained(tmp_path / "export")
    for opener in (DiffusionPolicy, Policy):
        opened = opener.from_pretrained(tmp_path / "export", model=Net())
        _, condition = batch()
        plans = [p.eval().plan(condition["observations"], seed=range(5)) for p in (made, opened)]
        assert torch.equal(*plans)


def test_it_is_rebuilt_from_its_config():
    made = diffusion_policy(relative_to="state", objective="x0")
    again = from_config(to_config(made), Policy)
    assert to_config(again) == to_config(made)
    again.load_state_dict(made.state_dict())
    _, condition = batch()
    plans = [p.plan(condition["observations"], seed=range(5)) for p in (made, again)]
    assert torch.equal(*plans)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: diffusion_policy(action_steps=8),
            "action_steps of at most 7, .* from observation 2 on .* horizon 8, got 8",
        ),
        (
            lambda: DiffusionPolicy(tiny_unet(), observations()),
            r"Expected .*\(horizon, action_dim\), got",
        ),
        (
            lambda: UNet1D(10, 2, down_dims=(8, 8, 8)),
            "Expected horizon divisible by 4, .* got 10. Fix: change horizon",
        ),
        (lambda: diffusion_policy(plan_steps=0), "plan_steps of at least 1, got 0"),
        (lambda: diffusion_policy(timestep=3), "timestep"),
        (
            lambda: diffusion_policy(fit=False).predict({"state": torch.zeros(1, 2, 3)}),
            "Expected statistics of the observations, got none yet",
        ),
        (
            lambda: diffusion_policy().predict({"state": torch.zeros(1, 3, 3)}),
            r"'state' \[batch, 2, 3\], got \[1, 3, 3\]",
        ),
        (
            lambda: diffusion_policy().predict({"state": torch.full((1, 2, 3), math.nan)}),
            "finite numbers in 'state'",
        ),
        (
            lambda: diffusion_policy(relative_to="state")(torch.zeros(1, 8, 2)),
            "observations of 'state', .*Fix: pass",
        ),
        (
            lambda: diffusion_policy()(
                torch.full((1, 8, 2), math.nan), observations=batch(1)[1]["observations"]
            ),
            "Expected finite data, got nan to nan in sample 0",
        ),
        (lambda: diffusion_policy()(torch.zeros(1, 8, 2)), "Expected a value for observations"),
        (
            lambda: diffusion_policy()(torch.zeros(1, 8, 3), **batch(1)[1]),
            r"\[\.\.\., 2\], got \[1, 8, 3\]",
        ),
        (
            lambda: diffusion_policy()(torch.zeros(1, 6, 2), **batch(1)[1]),
            r"\[batch, 8, 2\].*got \[1, 6, 2\]",
        ),
    ],
)
def test_bad_input_gives_a_one_line_error(build, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_a_mask_is_refused_by_the_variational_loss():
    made = diffusion_policy(
        loss=VariationalLoss("small"), times="steps", timesteps=10, noise_schedule="squaredcos_beta"
    )
    actions, condition = batch()
    with pytest.raises(ValueError, match="counts every dimension|mask"):
        made(actions, **condition)


def test_self_conditioning_reaches_the_network():
    made = fitted(DiffusionPolicy(network(self_condition=True), observations(), action_steps=4))
    torch.nn.init.normal_(made.diffusion.model.layer_in.weight)
    actions, condition = batch()
    one, two = (
        made(actions, generator=generator(), self_condition_draw=d, **condition)
        for d in (0.0, 0.99)
    )
    assert one != two
