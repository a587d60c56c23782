"""Networks for action sequences."""

from __future__ import annotations

import pytest
import torch

from diffusion_framework.models import ResidualMLP, Transformer1D, UNet1D

SIZES = {"horizon": 8, "action_dim": 3, "observation_steps": 2, "observation_dim": 5}
NETWORKS = {
    "UNet1D": lambda **more: UNet1D(**SIZES, down_dims=(8, 12, 16), **more),
    "Transformer1D": lambda **more: Transformer1D(**SIZES, dim=16, depth=2, **more),
    "ResidualMLP": lambda **more: ResidualMLP(**SIZES, dim=16, depth=2, **more),
}


def without_zeros(network: torch.nn.Module) -> torch.nn.Module:
    """Draws zero-initialised parameters at random, as if the network were trained."""
    for parameter in network.parameters():
        if (parameter == 0).all():
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def inputs(batch: int = 4):
    return torch.randn(batch, 8, 3), torch.rand(batch), torch.randn(batch, 2, 5)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_network_starts_at_zero_and_uses_every_input(build):
    x, time, context = inputs()
    network = build(self_condition=True)
    assert network.sample_shape == (8, 3)
    assert (network(x, time, context=context) == 0).all()
    without_zeros(network)
    output = network(x, time, context=context)
    assert output.shape == x.shape
    assert torch.equal(network(x, time, self_cond=torch.zeros_like(x), context=context), output)
    for other in (
        network(x, time, self_cond=x, context=context),
        network(x, time / 2, context=context),
        network(x, time, context=context + 1),
    ):
        assert not torch.allclose(other, output)
    output.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_samples_of_a_batch_do_not_affect_each_other(build):
    x, time, context = inputs()
    network = without_zeros(build())
    alone = torch.cat(
        [network(x[i : i + 1], time[i : i + 1], context=context[i : i + 1]) for i in range(4)]
    )
    torch.testing.assert_close(network(x, time, context=context), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_observations_of_another_shape_are_refused(build):
    x, time, context = inputs()
    for wrong in (None, context[:, :1], context[:, :, :4]):
        with pytest.raises(ValueError, match=r"Expected observations \[batch, 2, 5\], got"):
            build()(x, time, context=wrong)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_wrong_shape_names_the_input(build):
    x, time, context = inputs()
    given = {"x": x, "time": time, "self_cond": x, "context": context}
    network = build(self_condition=True)
    for name, value, message in (
        ("x", x[:, :3], r"\[4, 8, 3\], got \[4, 3, 3\]"),
        ("x", x[0], r"\[8, 8, 3\], got \[8, 3\]"),
        ("time", time[0], r"\[4\], got \[\]"),
        ("self_cond", x[:1], r"\[4, 8, 3\], got \[1, 8, 3\]"),
    ):
        with pytest.raises(ValueError, match=f"^Expected {name} of shape {message}. Fix"):
            network(**{**given, name: value})
    with pytest.raises(ValueError, match=r"Expected observations \[batch, 2, 5\], got \[1, 2, 5"):
        network(x, time, context=context[:1])


def test_a_convolutional_network_takes_longer_plans():
    x, time, context = inputs()
    assert NETWORKS["UNet1D"]()(torch.cat([x, x], dim=1), time, context=context).shape[1] == 16


def test_a_network_without_observations_refuses_observations():
    x, time, context = inputs()
    for network in (
        UNet1D(8, 3, down_dims=(8,)),
        Transformer1D(8, 3, dim=8, depth=1),
        ResidualMLP(8, 3, dim=8, depth=1),
    ):
        assert network(x, time).shape == x.shape
        with pytest.raises(ValueError, match="Expected observations"):
            network(x, time, context=context)


def test_a_causal_transformer_ignores_later_actions_and_later_observations():
    x, time, context = inputs()
    for causal in (True, False):
        network = without_zeros(NETWORKS["Transformer1D"](causal=causal))
        output = network(x, time, context=context)
        later = x.clone()
        later[:, 5:] += 1
        changed = (network(later, time, context=context) - output).abs().amax(dim=(0, 2)) > 1e-6
        assert changed.tolist() == [not causal] * 5 + [True] * 3
        context_later = context.clone()
        context_later[:, 1] += 1
        changed = (network(x, time, context=context_later) - output).abs().amax(dim=(0, 2)) > 1e-6
        assert changed.tolist() == [not causal] + [True] * 7


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: UNet1D(6, 2, down_dims=(8, 8, 8)),
            "horizon divisible by 4, as 3 levels halve it 2 times, got 6",
        ),
        (lambda: UNet1D(8, 2, down_dims=(8,), kernel_size=4), "odd kernel_size"),
        (lambda: Transformer1D(8, 2, dim=10, heads=4), "divisible by heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
