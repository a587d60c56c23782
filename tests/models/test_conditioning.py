"""Tests of what the networks of images do with their conditions."""

import pytest
import torch
from torch import nn
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion
from diffusion_framework.conditions import Text
from diffusion_framework.models import RIN, DiT

ALL = {"num_classes": 3, "image_channels": 2, "vector_dim": 4, "token_dim": 6}
TOLD = ALL | {"augmentation": True}
SIZE = {"channels": 3, "image_size": 8}
NETWORKS = {
    "unet": lambda **options: tiny_unet(**SIZE, **options),
    "dit": lambda **options: DiT(16, 2, 2, 4, **SIZE, **options),
    "rin": lambda **options: RIN(16, 16, 4, 2, 1, 2, 4, **SIZE, **options),
}
EACH = pytest.mark.parametrize("kind", NETWORKS)


def made(kind, **options):
    torch.manual_seed(0)
    network = NETWORKS[kind](**options).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def given(batch=3, tokens=5):
    draw = torch.Generator().manual_seed(1)
    random = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    mask = torch.arange(tokens) < torch.tensor([[2], [tokens], [1]])
    told = {"labels": torch.tensor([0, 2, 1]), "image": random(batch, 2, 8, 8)}
    told |= {"vector": random(batch, 4), "tokens": random(batch, tokens, 6), "token_mask": mask}
    told["augmentation"] = random(batch, 9)
    return (random(batch, 3, 8, 8), torch.tensor([0.1, 0.5, 0.9])), told


@EACH
def test_each_condition_and_each_parameter_affects_the_output(kind):
    network, (x_time, told) = made(kind, **TOLD), given()
    out = network(*x_time, **told)
    assert out.shape == x_time[0].shape
    others = {**told, "labels": told["labels"].flip(0), "token_mask": ~told["token_mask"]}
    others |= {
        name: told[name].roll(1, -1) for name in ("image", "vector", "tokens", "augmentation")
    }
    others["token_mask"][1, 0] = True
    for name, other in others.items():
        changed = network(*x_time, **{**told, name: other})
        assert (changed - out).abs().amax((1, 2, 3)).max() > 1e-6, name
    previous = {"latents": torch.randn(3, 4, 16).double()} if kind == "rin" else {}
    network(*x_time, x_time[0], **told, **previous).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@EACH
def test_padding_and_what_stands_in_it_change_nothing(kind):
    network, (x_time, told) = made(kind, **TOLD), given()
    out = network(*x_time, **told)
    noise = torch.randn(told["tokens"].shape).double() * ~told["token_mask"][:, :, None]
    torch.testing.assert_close(network(*x_time, **{**told, "tokens": told["tokens"] + noise}), out)
    longer = {"tokens": nn.functional.pad(told["tokens"], (0, 0, 0, 4))}
    longer["token_mask"] = nn.functional.pad(told["token_mask"], (0, 4))
    torch.testing.assert_close(network(*x_time, **{**told, **longer}), out)
    whole = {**told, "token_mask": torch.ones_like(told["token_mask"])}
    without = {**told, "token_mask": None}
    torch.testing.assert_close(network(*x_time, **without), network(*x_time, **whole))


@EACH
def test_a_network_takes_the_conditions_it_is_built_for_and_no_others(kind):
    x_time, told = given()
    told.pop("token_mask")
    options = dict(zip(("labels", "image", "vector", "tokens"), ALL.items(), strict=True))
    for name, (option, size) in options.items():
        network = made(kind, **{option: size})
        network(*x_time, **{name: told[name]})
        assert name in network.condition_keywords
        with pytest.raises(ValueError, match=f"Expected {name} if and only if .* got {option}="):
            network(*x_time)
        with pytest.raises(ValueError, match=f"Expected {name} if and only if .* {option}=None"):
            made(kind)(*x_time, **{name: told[name]})
        with pytest.raises(ValueError, match=f"Expected {option} of at least 1, .*got 0"):
            made(kind, **{option: 0})


@EACH
def test_a_model_trains_and_samples_with_all_conditions_of_its_network(kind):
    network = NETWORKS[kind](**TOLD | {"token_dim": 8})
    diffusion = GaussianDiffusion(network, condition_dropout=0.5, timesteps=8)
    assert list(diffusion.conditions) == ["labels", "image", "vector", "text", "augmentation"]
    told = {"labels": [0, 1, 2], "image": torch.rand(3, 2, 8, 8), "vector": torch.randn(3, 4)}
    told["text"] = ["a red heart", "a blue heart", "one more heart"]
    diffusion.fit([(torch.rand(3, 3, 8, 8), told)])
    diffusion(torch.rand(3, 3, 8, 8), **told).backward()
    assert all(p.grad is not None for p in diffusion.parameters())
    for parameter in diffusion.parameters():
        nn.init.normal_(parameter, std=0.1)
    options = {"steps": 2, "seed": 0, "show_progress": False}
    whole = diffusion.sample(3, guidance=2.0, **told, **options)
    assert whole.shape == (3, 3, 8, 8) and torch.isfinite(whole).all()
    for name in told:  # a condition that is left out is "none", which differs from its value
        fewer = {n: v for n, v in told.items() if n != name}
        assert not torch.equal(diffusion.sample(3, **fewer, **options), whole)
    without = diffusion.sample(3, **options)
    assert torch.isfinite(without).all()


def test_a_condition_that_nothing_supplies_or_takes_is_refused():
    with pytest.raises(ValueError, match="all arguments that UNet requires, got none for tokens"):
        GaussianDiffusion(NETWORKS["unet"](token_dim=8), conditions={})
    with pytest.raises(ValueError, match="that UNet takes .*got 'text', which gives 'tokens'"):
        GaussianDiffusion(NETWORKS["unet"](num_classes=3), conditions={"text": Text(8)})
    with pytest.raises(ValueError, match="no condition_dropout beside conditions, got 0.5"):
        GaussianDiffusion(NETWORKS["unet"](), conditions={}, condition_dropout=0.5)
