"""`DiffusionPolicy`: a diffusion model like any other, and one that acts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import QUIET, tiny_unet

from diffusion_framework import (
    DDPM,
    BehaviourCloning,
    DiffusionPolicy,
    Episodes,
    EpisodeWindows,
    GaussianDiffusion,
    Heun,
    Normalizer,
    ObservationEncoder,
    ResidualMLP,
    Trainer,
    Transformer1D,
    UNet1D,
)
from diffusion_framework.losses import VariationalLoss
from diffusion_framework.storage.config import from_config, to_config


def episodes(count: int = 6, length: int = 12) -> Episodes:
    rng = np.random.default_rng(0)
    state = rng.normal(50, 20, (count * length, 3)).astype(np.float32)
    return Episodes({"state": state, "action": state[:, :2] + 3}, np.arange(1, count + 1) * length)


def windows(**options) -> EpisodeWindows:
    return EpisodeWindows(episodes(), **{"horizon": 8, "action_steps": 4, **options})


def policy(cls=DiffusionPolicy, fitted: bool = True, **options) -> DiffusionPolicy:
    network = ResidualMLP(8, 2, 2, 3, dim=16, depth=1)
    torch.nn.init.normal_(network.layer_out.weight, std=0.1)  # as if trained
    made = cls(network, **{"action_steps": 4, "normalizer": Normalizer(), "plan_steps": 4, **options})
    if fitted:
        made.fit(windows())
    return made


def batch(size: int = 5):
    return windows().take(np.arange(size))


def test_with_an_image_network_it_is_the_diffusion_model_it_was():
    network, images = tiny_unet(), torch.rand(3, 1, 8, 8)
    one, other = DiffusionPolicy(network, timesteps=4), GaussianDiffusion(network, timesteps=4)
    losses = [d(images, generator=torch.Generator().manual_seed(0)) for d in (one, other)]
    assert torch.equal(*losses)
    samples = [d.sample(2, seed=0, show_progress=False) for d in (one, other)]
    assert torch.equal(*samples) and samples[0].shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="acting needs a normalizer"):
        one.predict({"state": torch.zeros(1, 2, 3)})


@pytest.mark.parametrize(
    "network",
    [
        UNet1D(8, 2, 2, 3, down_dims=(8, 16), self_condition=True),
        Transformer1D(8, 2, 2, 3, dim=16, depth=2, self_condition=True),
        ResidualMLP(8, 2, 2, 3, dim=16, depth=2, self_condition=True),
    ],
    ids=lambda network: type(network).__name__,
)
@pytest.mark.parametrize(("objective", "sampler"), [("v", None), ("eps", DDPM()), ("x0", Heun())])
def test_every_network_trains_and_samples_with_every_objective(network, objective, sampler):
    made = DiffusionPolicy(network, action_steps=4, normalizer=Normalizer(), objective=objective)
    made.fit(windows())
    actions, condition = batch()
    made(actions, self_condition_draw=0.0, **condition).backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)
    plans = made.plan(condition["observations"], sampler=sampler, steps=3)
    assert plans.shape == (5, 8, 2) and torch.isfinite(plans).all()
    assert torch.equal(
        made.plan(condition["observations"], seed=range(5)), made.plan(condition["observations"], seed=range(5))
    )


def test_padding_does_not_reach_the_loss_and_the_rest_counts_alike():
    made = policy()
    actions, condition = batch()
    loss = lambda actions, mask: made(  # noqa: E731
        actions, generator=torch.Generator().manual_seed(0), observations=condition["observations"], mask=mask
    )
    mask = torch.rand(5, 8) < 0.6
    with torch.no_grad():
        for step in range(8):  # the loss is a sum over steps, of which the mask leaves some out
            only = torch.zeros(5, 8, dtype=torch.bool)
            only[:, step] = True
            mask_parts = [loss(actions, mask & only), loss(actions, ~mask & only)]
            torch.testing.assert_close(sum(mask_parts), loss(actions, only))
        assert loss(actions, torch.zeros(5, 8, dtype=torch.bool)) == 0
        torch.testing.assert_close(loss(actions, torch.ones(5, 8, dtype=torch.bool)), loss(actions, None))
    made.zero_grad()
    loss(actions, mask & False).backward()
    assert all((p.grad == 0).all() for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize("relative_to", [None, "state"])
def test_actions_go_in_and_come_out_as_measured(relative_to):
    made = policy(relative_to=relative_to)
    actions, condition = batch()
    x = made.to_network(actions, **condition)
    assert x.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(made.to_actions(x, **condition), actions)
    moved = {"state": condition["observations"]["state"] + 100}
    shift = made.to_actions(x, observations=moved) - actions
    torch.testing.assert_close(shift, torch.full_like(shift, 100.0 if relative_to else 0.0), atol=1e-3, rtol=0)


def test_the_executed_slice_starts_at_the_newest_observation():
    made = policy()
    _, condition = batch()
    observations = condition["observations"]
    plans, actions = made.plan(observations, seed=range(5)), made.predict(observations, seed=range(5))
    assert torch.equal(actions, plans[:, 1:5])


@pytest.mark.parametrize("several", [False, True])
def test_acting_is_planning_every_action_steps_from_the_last_observations(several):
    made = policy()
    states = torch.randn(11, 3, 3) * 20 + 50  # steps, environments
    acted = []
    for t, state in enumerate(states):
        chosen = {"state": state} if several else {"state": state[0].numpy()}
        acted.append(made.act(chosen, seed=[100 * t + i for i in range(3)]))
    for i in range(3 if several else 1):
        for t in range(11):
            planned = t - t % 4
            seen = states[[max(0, planned - 1), planned], i][None]
            expected = made.predict({"state": seen}, seed=[100 * planned + i])[0, t - planned]
            torch.testing.assert_close(acted[t][i] if several else acted[t], expected)


def test_environments_are_reset_one_by_one():
    made = policy()
    states = torch.randn(6, 2, 3) * 20 + 50
    seeds = lambda t: [t, 50 + t]  # noqa: E731
    for t in range(3):
        made.act({"state": states[t]}, seed=seeds(t))
    made.reset([False, True])
    actions = made.act({"state": states[3]}, seed=seeds(3))
    first = made.predict({"state": states[[0, 0], 0][None]}, seed=[0])
    anew = made.predict({"state": states[[3, 3], 1][None]}, seed=[53])
    torch.testing.assert_close(actions, torch.stack([first[0, 3], anew[0, 0]]))
    with pytest.raises(ValueError, match=r"2 environments were acted for, now 1; call reset\(\)"):
        made.act({"state": states[3, :1]})
    made.reset()
    assert made.act({"state": states[3, :1]}).shape == (1, 2)


def test_a_warm_start_goes_on_from_the_tail_of_the_last_plan():
    made = policy(relative_to="state")
    states = [torch.randn(1, 3) * 20 + 50 for _ in range(5)]
    first = made.plan({"state": torch.stack([states[0], states[0]], dim=1)}, seed=[0])
    for t, state in enumerate(states):
        action = made.act({"state": state}, seed=[t], warm_start=0.5)
    tail = torch.cat([first[:, 4:], first[:, -1:].expand(-1, 4, -1)], dim=1)
    seen = {"state": torch.stack([states[3], states[4]], dim=1)}
    expected = made.predict(seen, seed=[4], last=tail, strength=0.5)[:, 0]
    torch.testing.assert_close(action, expected)
    # from almost no noise, a plan stays what it was
    near = made.plan(seen, last=tail, strength=1e-3, steps=1000, seed=[4])
    bounded = made.to_actions(made.to_network(tail, observations=seen).clamp(-1, 1), observations=seen)
    assert (near - bounded).abs().max() < 0.1 * (made.plan(seen, seed=[4]) - bounded).abs().max()


def test_several_streams_and_images():
    encoder = ObservationEncoder({"camera": 3}, keypoints=4, crop=56)
    made = DiffusionPolicy(
        ResidualMLP(8, 2, 2, 5 + 8, dim=16, depth=1), action_steps=4, normalizer=Normalizer(), encoder=encoder
    )
    rng = np.random.default_rng(0)
    arrays = {
        "camera": rng.integers(0, 256, (24, 64, 64, 3), dtype=np.uint8),
        "arm": rng.normal(size=(24, 3)),
        "block": rng.normal(size=(24, 2)),
        "action": rng.normal(size=(24, 2)),
    }
    data = EpisodeWindows(
        Episodes(arrays, [12, 24]), observations=["camera", "arm", "block"], horizon=8, action_steps=4
    )
    made.fit(data)
    actions, condition = data.take(np.arange(3))
    loss = made(actions, **condition)
    torch.nn.init.normal_(made.model.layer_out.weight)
    made(actions, **condition).backward()
    assert torch.isfinite(loss) and encoder.networks[0][0].weight.grad.abs().max() > 0
    observations = condition["observations"]
    order = {name: observations[name] for name in ("block", "camera", "arm")}
    assert torch.equal(made.plan(observations, seed=range(3)), made.plan(order, seed=range(3)))
    frame = {name: value[0, 1] for name, value in observations.items()}
    assert made.act(frame).shape == (2,)


def test_training_fits_the_normalizer_and_a_checkpoint_brings_it_back(tmp_path):
    made = policy(fitted=False, relative_to="state")
    data = windows()
    options = {**QUIET, "train_batch_size": 4, "results_folder": tmp_path / "run"}
    Trainer(made, data, train_num_steps=2, **options).train()
    loaded = DiffusionPolicy.from_pretrained(tmp_path / "run", weights="model")
    _, condition = batch()
    plans = [p.plan(condition["observations"], seed=range(5)) for p in (made, loaded)]
    assert torch.equal(*plans)
    assert type(GaussianDiffusion.from_pretrained(tmp_path / "run")) is DiffusionPolicy
    offsets = made.normalizer.offset if hasattr(made.normalizer, "offset") else dict(made.normalizer.named_buffers())
    loaded.fit(EpisodeWindows(episodes(3), horizon=8, action_steps=4))  # what is fitted stays: its weights know it
    for name, values in loaded.normalizer.named_buffers():
        assert torch.equal(values, offsets[name])


def test_it_is_rebuilt_from_its_config():
    made = policy(relative_to="state", objective="x0", encoder=ObservationEncoder())
    again = from_config(to_config(made), DiffusionPolicy)
    assert to_config(again) == to_config(made)
    assert again.relative_to == "state" and math.isclose(again.plan_steps, 4)


def test_behaviour_cloning_learns_the_mean_of_the_experts():
    """Of two opposite experts at the same place, the mean squared error leaves the middle."""
    rng = np.random.default_rng(0)
    side = np.repeat(rng.permutation([-1.0, 1.0] * 20), 10)[:, None]
    data = EpisodeWindows(
        Episodes({"state": np.zeros((400, 3)), "action": np.hstack([side, side])}, np.arange(10, 401, 10)),
        horizon=8,
        action_steps=4,
    )
    made = BehaviourCloning(ResidualMLP(8, 2, 2, 3, dim=16, depth=1), action_steps=4, normalizer=Normalizer())
    made.fit(data)
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    actions, condition = data.take(np.arange(len(data)))
    for _ in range(60):
        optimizer.zero_grad()
        made(actions, **condition).backward()
        optimizer.step()
    assert made.predict({"state": torch.zeros(1, 2, 3)}).abs().max() < 0.1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: policy(action_steps=8), "has 7 actions from observation 2 on, and action_steps asks for 8; lower it"),
        (lambda: policy(horizon=16), r"samples of shape \(8, 2\); a policy wants \(16, action_dim\)"),
        (lambda: UNet1D(10, 2, down_dims=(8, 8, 8)), "horizon divisible by 4, .*, got 10. Fix: change horizon"),
        (lambda: policy(plan_steps=0), "from 1 to 100000, got 0"),
        (lambda: policy(timestep=3), "timestep"),
        (
            lambda: policy(fitted=False).predict({"state": torch.zeros(1, 2, 3)}),
            r"fitted \(no streams yet\), got 'state'",
        ),
        (
            lambda: policy().predict({"state": torch.zeros(1, 3, 3)}),
            r"'state' must be \[batch, 2, ...\]; got \[1, 3, 3\]",
        ),
        (lambda: policy().predict({"state": torch.full((1, 2, 3), math.nan)}), "'state' holds NaN or infinity"),
        (lambda: policy(relative_to="state")(torch.zeros(1, 8, 2)), "relative to the observation 'state'; give it"),
        (
            lambda: policy()(torch.full((1, 8, 2), math.nan), observations=batch(1)[1]["observations"]),
            "actions hold NaN",
        ),
        (lambda: policy()(torch.zeros(1, 8, 2)), "a value for observations, got none"),
        (lambda: policy()(torch.zeros(1, 8, 3), **batch(1)[1]), r"\[..., 2\], got \[1, 8, 3\]"),
        (
            lambda: policy(fitted=False).fit(windows(horizon=4, action_steps=2)),
            "set its horizon and action_dim to match",
        ),
        (lambda: policy(fitted=False).fit([1, 2]), "fits itself to EpisodeWindows only"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(build, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_a_mask_goes_with_losses_that_can_leave_something_out():
    made = policy(loss=VariationalLoss("small"), times="steps", timesteps=10, noise_schedule="squaredcos_beta")
    actions, condition = batch()
    with pytest.raises(ValueError, match="the bound counts every dimension, got one. Fix: loss='simple'"):
        made(actions, **condition)
