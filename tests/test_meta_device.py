"""Nothing that is built or computed on the host looks at a tensor of the default device."""

import pytest
import torch
from toys import tiny_dit, tiny_rin, tiny_unet

from diffusion_framework import (
    DiffusionPolicy,
    GaussianDiffusion,
    ResidualMLP,
    Transformer1D,
    UNet1D,
)
from diffusion_framework.conditions import Observations
from diffusion_framework.losses import losses_by_name, times_by_name, weights_by_name
from diffusion_framework.network_input import input_scalings, time_inputs
from diffusion_framework.process import objectives, schedules

SEQUENCE = {"horizon": 8, "action_dim": 2}
OPTIONS = [
    *({"noise_schedule": name} for name in schedules.by_name),
    *({"objective": name} for name in objectives.by_name),
    *({"times": name} for name in times_by_name),
    *({"loss_weight": name} for name in weights_by_name),
    *({"loss": name, "times": "loss_aware"} for name in losses_by_name),
    *({"time_input": name} for name in time_inputs),
    *({"input_scaling": name} for name in input_scalings),
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


@pytest.mark.parametrize(
    "network",
    [
        lambda: tiny_unet(num_classes=3),
        tiny_rin,
        tiny_dit,
        lambda: UNet1D(**SEQUENCE, down_dims=(8, 16)),
        lambda: Transformer1D(**SEQUENCE),
        lambda: ResidualMLP(**SEQUENCE),
    ],
)
def test_every_network_is_built_without_memory(network):
    with torch.device("meta"):
        diffusion = GaussianDiffusion(network())
    assert all(tensor.is_meta for tensor in diffusion.state_dict().values())


def test_a_policy_is_built_without_memory():
    with torch.device("meta"):
        policy = DiffusionPolicy(UNet1D(**SEQUENCE, down_dims=(8, 16)), Observations({"state": 3}), action_steps=4)
    assert all(tensor.is_meta for tensor in policy.state_dict().values())
