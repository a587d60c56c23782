"""Models run on the meta device, so they never wait for a device and never mix devices.

Tensors on the meta device have no values. Models built there create no tensor on another device.
"""

import inspect

import pytest
import torch
from demonstrations import batch, behaviour_cloning, diffusion_policy, fitted
from torch import nn
from toys import tiny_dit, tiny_rin, tiny_unet

from diffusion_framework import DDIM, DiffusionPolicy, GaussianDiffusion, samplers
from diffusion_framework.conditions import Observations
from diffusion_framework.models import ResidualMLP, Transformer1D, UNet1D
from diffusion_framework.parts.table import TABLE
from diffusion_framework.samplers import Sampler, trajectory
from diffusion_framework.samplers.adaptive import AdaptiveSolver
from diffusion_framework.spaces import ImageSpace, Unbounded

SEQUENCE = {"horizon": 8, "action_dim": 2}
OPTIONS = [
    *(
        {"noise_schedule": name}
        for name in TABLE["NoiseSchedule"]
        if name not in ("betas", "scaled")
    ),
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
    outputs = {"learned_variance": True, "second_time": options.get("loss") == "flow_map"}
    with torch.device("meta"):
        diffusion = GaussianDiffusion(tiny_unet(**outputs), timesteps=50, **options)
        grid = diffusion.grid(5)
    assert all(parameter.is_meta for parameter in diffusion.parameters())
    assert grid == diffusion.grid(5)
    real = GaussianDiffusion(tiny_unet(**outputs), timesteps=50, **options)
    assert real.schedule == diffusion.schedule
    assert torch.isfinite(real(torch.rand(4, 1, 8, 8))), "cached values must serve other devices"


NETWORKS = [
    tiny_unet,
    tiny_rin,
    tiny_dit,
    lambda: UNet1D(**SEQUENCE, down_dims=(8, 16)),
    lambda: Transformer1D(**SEQUENCE),
    lambda: ResidualMLP(**SEQUENCE),
    lambda: UNet1D(**SEQUENCE, down_dims=(8, 16), second_time=True),
    lambda: Transformer1D(**SEQUENCE, second_time=True),
    lambda: ResidualMLP(**SEQUENCE, second_time=True),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_built_without_memory(network):
    with torch.device("meta"):
        diffusion = GaussianDiffusion(network())
    assert all(tensor.is_meta for tensor in diffusion.state_dict().values())


def test_a_policy_is_built_without_memory():
    with torch.device("meta"):
        policy = DiffusionPolicy(
            UNet1D(**SEQUENCE, down_dims=(8, 16)), Observations({"state": 3}), action_steps=4
        )
    assert all(tensor.is_meta for tensor in policy.state_dict().values())


def take_step(model, data, **condition):
    """Takes an optimizer step.

    On the meta device, an operation that reads a value or mixes devices raises.
    """
    loss = model(data, **condition)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters()).step()
    assert loss.is_meta
    assert any(parameter.grad is not None for parameter in model.parameters())


class Small(nn.Module):
    """A network of one convolution, with self-conditioning, learned variance and a second time."""

    channels, image_size, learned_variance = 1, 8, True

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x, time, self_cond=None, second_time=None):
        estimate = torch.zeros_like(x) if self_cond is None else self_cond
        levels = time if second_time is None else time + second_time
        return self.conv(torch.cat([x, estimate], dim=1)) * levels[:, None, None, None]


@pytest.mark.parametrize("feedback", [0.0, 1.0])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_training_step_of_every_part_waits_for_nothing(options, feedback):
    diffusion = GaussianDiffusion(
        Small(), timesteps=50, train_prob_self_cond=feedback, **options
    ).to("meta")
    take_step(diffusion, torch.rand(4, 1, 8, 8, device="meta"))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_and_samples_without_waiting(network):
    diffusion = GaussianDiffusion(network(), train_prob_self_cond=1.0).to("meta")
    data = torch.rand(4, *diffusion.sample_shape, device="meta")
    take_step(diffusion, data)
    with torch.no_grad():
        *_, last = trajectory(
            DDIM(), diffusion.denoiser(), data, diffusion.grid(2), torch.randn_like
        )
    assert last.x.is_meta and last.x.shape == data.shape


def test_a_training_step_with_labels_waits_for_nothing():
    diffusion = GaussianDiffusion(tiny_unet(num_classes=3), condition_dropout=0.1).to("meta")
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    take_step(diffusion, torch.rand(4, 1, 8, 8, device="meta"), labels=labels)


SPACES = [
    (ImageSpace(), torch.rand(4, 1, 8, 8)),
    (ImageSpace(value_range=(0, 255)), torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)),
    (Unbounded(mean=0.5, std=0.3), torch.randn(4, 1, 8, 8)),
    (Unbounded(), torch.randn(4, 1, 8, 8)),
]


@pytest.mark.parametrize(("space", "data"), SPACES)
def test_a_training_step_of_every_space_waits_for_nothing(space, data):
    diffusion = GaussianDiffusion(Small(), space=space)
    diffusion.fit([(data, {})])
    take_step(diffusion.to("meta"), data.to("meta"))


@pytest.mark.parametrize(
    "policy", [diffusion_policy(), behaviour_cloning()], ids=lambda p: type(p).__name__
)
def test_a_training_step_of_every_policy_waits_for_nothing(policy):
    actions, condition = batch(4)
    on_meta = {
        "observations": {
            name: value.to("meta") for name, value in condition["observations"].items()
        }
    }
    take_step(
        fitted(policy).to("meta"), actions.to("meta"), mask=condition["mask"].to("meta"), **on_meta
    )


FIXED_STEPS = sorted(
    (
        value
        for value in vars(samplers).values()
        if inspect.isclass(value) and issubclass(value, Sampler) and not inspect.isabstract(value)
        if not issubclass(value, AdaptiveSolver)  # they choose steps by error estimates
    ),
    key=lambda sampler: sampler.__name__,
)


@pytest.mark.parametrize("sampler", FIXED_STEPS, ids=lambda sampler: sampler.__name__)
def test_every_sampler_of_fixed_steps_waits_for_nothing(sampler):
    assert len(FIXED_STEPS) >= 15
    diffusion = GaussianDiffusion(Small()).to("meta")
    x = torch.randn(4, 1, 8, 8, device="meta")
    with torch.no_grad():
        snapshots = list(
            trajectory(sampler(), diffusion.denoiser(), x, diffusion.grid(5), torch.randn_like)
        )
    assert len(snapshots) == 5
    assert all(snapshot.x.is_meta and snapshot.x0.is_meta for snapshot in snapshots)


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"clip_denoised": "dynamic"}], ids=str)
def test_no_option_of_sampling_waits_for_the_device(options):
    diffusion = GaussianDiffusion(tiny_unet(num_classes=3), condition_dropout=0.1).to("meta")
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    images = diffusion.sample(2, steps=4, labels=labels, show_progress=False, **options)
    assert images.is_meta and images.shape == (2, 1, 8, 8)
