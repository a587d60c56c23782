"""Models in other precisions: every network trains and samples, and x stays in float32."""

import math
from contextlib import contextmanager

import pytest
import torch
from toys import randomised, tiny_dit, tiny_rin, tiny_unet

from diffusion_framework import GaussianDiffusion
from diffusion_framework.models import ResidualMLP, Transformer1D, UNet1D
from diffusion_framework.models.layers import TimeEmbedding

SEQUENCE = {"horizon": 8, "action_dim": 2, "self_condition": True}
NETWORKS = {
    "unet": lambda: tiny_unet(num_classes=3),
    "dit": lambda: tiny_dit(num_classes=3),
    "rin": lambda: tiny_rin(num_classes=3),
    "unet1d": lambda: UNet1D(**SEQUENCE, down_dims=(8, 16)),
    "transformer1d": lambda: Transformer1D(**SEQUENCE, dim=8, depth=1, heads=2),
    "residual_mlp": lambda: ResidualMLP(**SEQUENCE, dim=8, depth=1),
}
DTYPES = [torch.bfloat16, torch.float16, torch.float64]


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def made(name, **options):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for parameter in randomised(network).parameters():
        parameter.data *= 0.3
    return GaussianDiffusion(
        network, timesteps=4, condition_dropout=0.1 * (name in ("unet", "dit", "rin")), **options
    )


def told(diffusion, count=4):
    return {"labels": torch.arange(count) % 3} if diffusion.num_classes else {}


def loss_and_gradient(diffusion):
    data = torch.linspace(0, 1, 4 * math.prod(diffusion.sample_shape), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    loss = diffusion(
        data.reshape(4, *diffusion.sample_shape),
        generator=generator,
        self_condition_draw=0.0,
        **told(diffusion),
    )
    diffusion.zero_grad()
    loss.backward()
    used = [p for p in diffusion.parameters() if p.grad is not None]
    assert used and all(p.grad.dtype == p.dtype for p in used)
    return loss.detach(), torch.cat([p.grad.flatten().double() for p in used])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_and_samples(name, dtype):
    single, single_gradient = loss_and_gradient(made(name))
    diffusion, exact = made(name).to(dtype), torch.promote_types(dtype, torch.float32)
    loss, gradient = loss_and_gradient(diffusion)
    assert loss.dtype == exact and torch.isfinite(gradient).all()
    if dtype != torch.float64:  # float64 draws other noise
        torch.testing.assert_close(loss, single, rtol=0.05, atol=0)
        assert torch.cosine_similarity(gradient, single_gradient, dim=0) > 0.98
    options = {"guidance": 2.0, **told(diffusion)} if diffusion.num_classes else {}
    for sampler in ("ddim", "heun", "unipc", "ddpm"):
        walk = diffusion.walk(4, sampler=sampler, seed=1, **options)
        for snapshot in diffusion.trajectory(walk):
            assert (
                snapshot.x.dtype == snapshot.x0.dtype == exact and torch.isfinite(snapshot.x).all()
            )
    assert all(parameter.dtype == dtype for parameter in diffusion.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_dtype_may_be_float64(name):
    with default_dtype(torch.float64):
        diffusion = made(name)
        loss, gradient = loss_and_gradient(diffusion)
        assert loss.dtype == torch.float64 and gradient.abs().max() > 0
        data = diffusion.sample(4, seed=1, show_progress=False, **told(diffusion))
        assert data.dtype == torch.float64 and torch.isfinite(data).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_default_dtype_of_half_precision_leaves_the_arithmetic_of_samplers_alone(name):
    """Lightning's bf16-true sets it around each step."""
    diffusion = made(name).to(torch.bfloat16)
    outside = diffusion.sample(4, seed=1, show_progress=False, **told(diffusion))
    with default_dtype(torch.bfloat16):
        assert loss_and_gradient(diffusion)[0].dtype == torch.float32
        inside = diffusion.sample(4, seed=1, show_progress=False, **told(diffusion))
    assert inside.dtype == torch.float32 and torch.equal(inside, outside)


@pytest.mark.parametrize("name", NETWORKS)
def test_double_precision_says_what_single_says(name):
    diffusion = made(name)
    options = {
        "seed": 1,
        "sampler": "heun",
        "clip_denoised": False,
        "show_progress": False,
        **told(diffusion),
    }
    noise = torch.randn(4, *diffusion.sample_shape)
    single = diffusion.sample(4, noise=noise, **options)
    double = diffusion.double().sample(4, noise=noise, **options)
    torch.testing.assert_close(single, double.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_starts_from_the_same_noise_and_tells_the_same_times(dtype):
    diffusion = made("unet")
    labels = told(diffusion)
    start = diffusion.walk(4, seed=1, **labels).start
    assert torch.equal(diffusion.to(dtype).walk(4, seed=1, **labels).start, start)
    embed = TimeEmbedding(32, 16)
    times = torch.linspace(0, 1, 1000)
    waves = []
    embed.layers = torch.nn.Sequential(torch.nn.Linear(32, 32))
    embed.layers[0].weight.data.copy_(torch.eye(32))
    embed.layers[0].bias.data.zero_()
    waves = embed.to(dtype)(times).float()
    torch.testing.assert_close(waves, embed.float()(times), rtol=0.01, atol=0.005)


def test_what_is_remembered_of_losses_keeps_its_precision():
    diffusion = GaussianDiffusion(tiny_unet(), times="loss_aware", timesteps=4)
    diffusion.time_memory.fill_(1 / 3)
    assert torch.equal(
        diffusion.to(torch.bfloat16).time_memory, torch.full_like(diffusion.time_memory, 1 / 3)
    )
    assert diffusion.time_memory.dtype == torch.float32
