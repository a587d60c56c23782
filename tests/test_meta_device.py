"""Nothing that is built or computed on the host looks at a tensor of the default device."""

import pytest
import torch
from toys import tiny_dit, tiny_rin, tiny_unet

from diffusion_framework import (
    DiffusionPolicy,
    GaussianDiffusion,
    Normalizer,
    ResidualMLP,
    Transformer1D,
    UNet1D,
)
from diffusion_framework.parts.table import TABLE

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
        policy = DiffusionPolicy(UNet1D(**SEQUENCE, down_dims=(8, 16)), action_steps=4, normalizer=Normalizer())
    assert all(tensor.is_meta for tensor in policy.state_dict().values())
