"""The latents that a RIN carries from call to call, and the estimate of the clean image."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import randomised, tiny_rin

import diffusion_framework as df
from diffusion_framework import RIN, GaussianDiffusion
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.samplers import DPM2, SinglestepDPM

SAMPLERS = [df.DDIM(), df.DDPM(), df.DPMSolver(), df.Heun(), df.LCM(), df.LMS(), df.ScoreSDE()]
SAMPLERS += [df.UniPC()]


def inputs(network, batch=2):
    x = torch.randn(batch, network.channels, *network.image_size)
    return x, torch.rand(batch), torch.randn(batch, *network.first_latents.shape)


def test_an_untrained_network_ignores_latents_and_training_changes_that():
    network = tiny_rin(num_classes=2)
    nn.init.normal_(network.to_patches.weight)
    x, time, latents = inputs(network)
    labels = torch.tensor([0, 1])
    cold, warm = network(x, time, labels=labels), network(x, time, latents=latents, labels=labels)
    assert torch.equal(cold, warm)
    warm.square().sum().backward()
    assert network.warm_start.norm.weight.grad.abs().min() > 0, "the scale must be able to leave 0"
    torch.optim.SGD(network.parameters(), 0.01).step()
    cold, warm = network(x, time, labels=labels), network(x, time, latents=latents, labels=labels)
    assert not torch.allclose(cold, warm)


def test_no_latents_means_latents_of_zeros():
    network = randomised(tiny_rin())
    x, time, latents = inputs(network)
    assert torch.equal(network(x, time), network(x, time, latents=torch.zeros_like(latents)))


@pytest.mark.parametrize("num_classes", [None, 3])
def test_returned_latents_have_the_shape_of_the_latents_given(num_classes):
    network = randomised(tiny_rin(num_classes=num_classes, image_size=(8, 12)))
    x, time, latents = inputs(network)
    labels = torch.tensor([0, 2]) if num_classes else None
    out, carried = network(x, time, latents=latents, labels=labels, return_latents=True)
    assert torch.equal(out, network(x, time, latents=latents, labels=labels))
    assert carried.shape == latents.shape and not torch.allclose(carried, latents)


@pytest.mark.parametrize("self_condition", [True, False])
def test_no_gradient_flows_through_the_first_pass_of_training(self_condition):
    """The gradient is that of a second pass, given constant latents and estimate of the first."""
    network = randomised(tiny_rin(self_condition=self_condition))
    diffusion = GaussianDiffusion(network, min_snr_loss_weight=False)
    images = torch.rand(3, 1, 8, 8)
    diffusion(
        images, generator=torch.Generator().manual_seed(0), self_condition_draw=0.0
    ).backward()
    trained = {name: p.grad.clone() for name, p in network.named_parameters()}

    source = torch.Generator().manual_seed(0)
    at = diffusion.schedule.at(diffusion.times.uniform(3, images.device, source))
    x0, eps, level = 2 * images - 1, generator_noise(source)(images), at.expand_to(images)
    x = level.alpha * x0 + level.sigma * eps

    def gradients(stop):
        network.zero_grad()
        out, latents = network(x, at.t.float(), return_latents=True)
        estimate = (level.alpha * x - level.sigma * out).clamp(-1, 1)  # x0 from v
        second = network(x, at.t.float(), stop(estimate), stop(latents))
        F.mse_loss(second, level.alpha * eps - level.sigma * x0).backward()
        return {name: p.grad for name, p in network.named_parameters()}

    for name, gradient in gradients(torch.Tensor.detach).items():
        torch.testing.assert_close(trained[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    through, ours = gradients(lambda tensor: tensor)["first_latents"], trained["first_latents"]
    assert (through - ours).norm() > 0.01 * ours.norm(), (
        "a gradient through both passes must differ"
    )


class RecordingRIN(RIN):
    """A RIN that records its calls: time, estimate and latents given, latents returned."""

    def forward(self, x, time, self_cond=None, latents=None, labels=None, return_latents=False):
        out, carried = super().forward(x, time, self_cond, latents, labels, return_latents=True)
        self.calls = [*getattr(self, "calls", []), (time[0].item(), self_cond, latents, carried)]
        return (out, carried) if return_latents else out


def recording_diffusion(**options):
    arguments = tiny_rin()._init_args
    return GaussianDiffusion(randomised(RecordingRIN(**arguments)), timesteps=6, **options)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_every_sampler_carries_latents_and_estimate_from_call_to_call(sampler):
    diffusion = recording_diffusion()
    snapshots = list(diffusion.trajectory(diffusion.walk(2, sampler=sampler, steps=6, seed=0)))
    calls = diffusion.model.calls
    assert len(calls) >= len(snapshots) == 6
    assert not calls[0][1].any() and calls[0][2] is None
    for (_, _, _, carried), (_, self_cond, latents, _) in pairwise(calls):
        assert latents is not None and torch.equal(latents, carried)
        assert self_cond is not None and self_cond.abs().max() <= 1


@pytest.mark.parametrize("sampler", [df.Heun(), DPM2(), SinglestepDPM()], ids=repr)
def test_the_first_call_of_a_step_takes_latents_from_the_last_call_of_the_step_before(sampler):
    diffusion = recording_diffusion()
    diffusion.sample(2, sampler=sampler, seed=0, show_progress=False)
    times = [time for time, *_ in diffusion.model.calls]
    starts = [times.index(pytest.approx(now.t)) for now, _ in diffusion.grid()]
    within = set(range(len(times))) - set(starts)
    assert within, "these samplers must call the network inside steps too"
    assert all(
        torch.equal(diffusion.model.calls[i][2], diffusion.model.calls[i - 1][3])
        for i in starts[1:]
    )


def test_a_network_trained_without_self_conditioning_gets_none_while_sampling():
    diffusion = recording_diffusion(train_prob_self_cond=0.0)
    diffusion(torch.rand(2, 1, 8, 8))
    diffusion.sample(2, seed=0, show_progress=False)
    assert all(
        self_cond is None and latents is None for _, self_cond, latents, _ in diffusion.model.calls
    )


@pytest.mark.parametrize(
    "options", [{"num_latents": 0}, {"blocks": 0}, {"depth": -1}, {"latent_dim": 7, "heads": 1}]
)
def test_sizes_that_do_not_fit_are_refused(options):
    ((name, value), *_) = options.items()
    with pytest.raises(ValueError, match=f"Expected at least one latent.*{name}={value}"):
        tiny_rin(**options)
