"""What runs on the meta device, whose tensors have no values, never waits for a device and never mixes devices.

Nor does what is built there look at a tensor of the default device.
"""

import inspect

import pytest
import torch
from toys import tiny_dit, tiny_rin, tiny_unet

import diffusion_framework as df
from diffusion_framework import (
    DiffusionPolicy,
    GaussianDiffusion,
    ResidualMLP,
    Sampler,
    Transformer1D,
    UNet1D,
    trajectory,
)
from diffusion_framework.conditions import Observations
from diffusion_framework.parts.table import TABLE
from diffusion_framework.samplers.adaptive import AdaptiveSolver

SEQUENCE = {"horizon": 8, "action_dim": 2}
OPTIONS = [
    *({"noise_schedule": name} for name in TABLE["NoiseSchedule"] if name not in ("betas", "scaled")),
    *({"objective": name} for name in TABLE["Objective"]),
    *({"times": name} for name in TABLE["TimeSampler"]),
    *({"loss_weight": name} for name in TABLE["LossWeight"]),
    *({"loss": name, "times": "loss_aware"} for name in TABLE["Loss"]),
    *({"time_input": name} for name in TABLE["TimeInput"]),
    *({"input_scaling": name} for name in TABLE["InputScaling"]),
    {"scale": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_part_is_built_without_memory(options):
    with torch.device("meta"):
        diffusion = GaussianDiffusion(tiny_unet(learned_variance=True), timesteps=9, **options)
        grid = diffusion.grid(5)
    assert all(parameter.is_meta for parameter in diffusion.parameters())
    assert grid == diffusion.grid(5)
    real = GaussianDiffusion(tiny_unet(learned_variance=True), timesteps=9, **options)
    assert real.schedule == diffusion.schedule
    assert torch.isfinite(real(torch.rand(4, 1, 8, 8))), "what was remembered on the way must serve other devices"


NETWORKS = [
    tiny_unet,
    tiny_rin,
    tiny_dit,
    lambda: UNet1D(**SEQUENCE, down_dims=(8, 16)),
    lambda: Transformer1D(**SEQUENCE),
    lambda: ResidualMLP(**SEQUENCE),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_built_without_memory(network):
    with torch.device("meta"):
        diffusion = GaussianDiffusion(network())
    assert all(tensor.is_meta for tensor in diffusion.state_dict().values())


def test_a_policy_is_built_without_memory():
    with torch.device("meta"):
        policy = DiffusionPolicy(UNet1D(**SEQUENCE, down_dims=(8, 16)), Observations({"state": 3}), action_steps=4)
    assert all(tensor.is_meta for tensor in policy.state_dict().values())


def take_step(model, data, **condition):
    """Takes an optimizer step. On the meta device, whatever waited for a number or mixed devices would raise."""
    loss = model(data, **condition)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters()).step()
    assert loss.is_meta
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("feedback", [0.0, 1.0])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_training_step_of_every_part_waits_for_nothing(options, feedback):
    network = tiny_unet(learned_variance=True)
    diffusion = GaussianDiffusion(network, timesteps=9, train_prob_self_cond=feedback, **options).to("meta")
    take_step(diffusion, torch.rand(4, 1, 8, 8, device="meta"))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_training_step_of_every_network_waits_for_nothing(network):
    diffusion = GaussianDiffusion(network(), train_prob_self_cond=1.0).to("meta")
    take_step(diffusion, torch.rand(4, *diffusion.sample_shape, device="meta"))


def test_a_training_step_with_labels_waits_for_nothing():
    diffusion = GaussianDiffusion(tiny_unet(num_classes=3), label_dropout=0.1).to("meta")
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    take_step(diffusion, torch.rand(4, 1, 8, 8, device="meta"), labels=labels)


FIXED_STEPS = sorted(
    (
        value
        for value in vars(df).values()
        if inspect.isclass(value) and issubclass(value, Sampler) and not inspect.isabstract(value)
        if not issubclass(value, AdaptiveSolver)  # which choose their steps by what they see
    ),
    key=lambda sampler: sampler.__name__,
)


@pytest.mark.parametrize("network", [tiny_unet, tiny_rin])
@pytest.mark.parametrize("sampler", FIXED_STEPS, ids=lambda sampler: sampler.__name__)
def test_every_sampler_of_fixed_steps_waits_for_nothing(sampler, network):
    assert len(FIXED_STEPS) >= 15
    diffusion = GaussianDiffusion(network()).eval().to("meta")
    x = torch.randn(4, 1, 8, 8, device="meta")
    with torch.no_grad():
        snapshots = list(trajectory(sampler(), diffusion.denoiser(), x, diffusion.grid(5), torch.randn_like))
    assert len(snapshots) == 5
    assert all(snapshot.x.is_meta and snapshot.x0.is_meta for snapshot in snapshots)
