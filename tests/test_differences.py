"""The options that interop/README.md names give the behaviour of the original code."""

import itertools
from pathlib import Path

import pytest
import torch
from toys import Plain, SelfConditioned

from diffusion_framework import DDIM, DDPM, GaussianDiffusion
from diffusion_framework.losses import LossWeight, UniformOn
from diffusion_framework.losses.weights import output_weight
from diffusion_framework.parts import plan
from diffusion_framework.process.objectives import Eps
from diffusion_framework.samplers.grids import Grid

PAGE = (Path(__file__).parents[1] / "diffusion_framework" / "interop" / "README.md").read_text()


@pytest.mark.parametrize("objective", ["x0", "eps", "v"])
def test_the_loss_without_min_snr(objective):
    """Of the original: SNR times the squared error of x0, so snr, 1 or snr / (1 + snr)."""
    assert "loss_weight=UniformOn(Eps())" in PAGE
    diffusion = GaussianDiffusion(Plain(), objective=objective, loss_weight=UniformOn(Eps()))
    at = diffusion.schedule.at(torch.linspace(0.05, 0.95, 19, dtype=torch.float64))
    snr = (at.alpha / at.sigma) ** 2
    expected = {"x0": snr, "eps": torch.ones_like(snr), "v": snr / (1 + snr)}[objective]
    weight = output_weight(diffusion.loss_weight, diffusion.objective, at)
    torch.testing.assert_close(weight, expected)
    described = {"class_path": "UniformOn", "init_args": {"objective": "eps"}}
    assert plan(described, LossWeight).build() == diffusion.loss_weight
    plain = GaussianDiffusion(Plain(), objective=objective, min_snr_loss_weight=False)
    assert plain.loss_weight is None


@pytest.mark.parametrize(("probability", "fed"), [(0.0, False), (1e-9, True)])
def test_feedback_in_sampling_that_training_never_showed(probability, fed):
    assert "`train_prob_self_cond=1e-9`" in PAGE
    network = SelfConditioned()
    diffusion = GaussianDiffusion(network, timesteps=4, train_prob_self_cond=probability)
    for _ in range(10):
        diffusion(torch.rand(2, 1, 4, 4))
    assert len(network.seen) == 10, "one call for each loss: no estimate to condition on"
    assert all(own is None or not own.any() for _, own in network.seen)
    network.seen.clear()
    diffusion.sample(2, show_progress=False)
    assert [own is not None and bool(own.any()) for _, own in network.seen] == [False, *[fed] * 3]


def test_noise_of_variance_one():
    assert "`noise=noise / diffusion.grid().start.sigma`" in PAGE
    diffusion = GaussianDiffusion(Plain(), timesteps=4, schedule_kwargs={"clip_min": 0.1})
    noise = torch.randn(2, 1, 4, 4)
    assert diffusion.grid().start.sigma < 0.95
    walk = diffusion.walk(2, noise=noise / diffusion.grid().start.sigma)
    torch.testing.assert_close(walk.start, noise)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()])
def test_steps_of_a_schedule_that_stands_still(sampler):
    """They call the network and change nothing."""
    assert "Grid(itertools.pairwise(levels))" in PAGE
    network = Plain()
    diffusion = GaussianDiffusion(network, timesteps=40, schedule_kwargs={"clip_min": 0.02})
    levels = [diffusion.schedule.at((40 - i) / 40) for i in range(41)]
    samples, calls = [], []
    for grid in (None, Grid(itertools.pairwise(levels))):
        network.seen.clear()
        samples.append(
            diffusion.sample(2, grid=grid, sampler=sampler, noise=torch.ones(2, 1, 4, 4), seed=1)
        )
        calls.append(len(network.seen))
    assert calls[0] < calls[1] == 40
    if sampler == DDIM():  # the noise of DDPM is drawn at every step
        torch.testing.assert_close(*samples)


def test_the_mean_of_previous_x_is_the_output_if_nothing_is_clipped():
    class Far(Plain):
        """Its estimates of x0 lie far outside of [-1, 1]."""

        def forward(self, x, time):
            self.out = 5 + x + 0 * self.conv(x)
            return self.out

    network = Far()
    diffusion = GaussianDiffusion(
        network, timesteps=10, noise_schedule="linear", objective="previous_x"
    )
    for clip, same in ((False, True), (None, False)):
        walk = diffusion.walk(2, sampler=DDPM(), steps=10, clip_denoised=clip, seed=0)
        now, to = walk.grid[4]
        mean, _ = walk.sampler.step(walk.denoise, walk.start, now, to, None, torch.zeros_like)
        error = (mean - network.out).abs().max()
        assert (error < 1e-3) == same, (clip, error)
