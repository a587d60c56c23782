"""The default sampler: an ordinary one whose steps are those of the sampler it chooses."""

import pytest
import torch
from oracles import MixtureOracle
from toys import tiny_diffusion, tiny_unet
from walks import end

from diffusion_framework import DDIM, GaussianDiffusion, UniPC
from diffusion_framework.process.schedules import (
    EDM,
    VE,
    Cosine,
    Flow,
    LinearBeta,
    ScaledLinearBeta,
    Sigmoid,
)
from diffusion_framework.samplers import Auto, DPMSolver
from diffusion_framework.samplers.grids import noise_scale, spaced_grid

SCHEDULES = pytest.mark.parametrize(
    "schedule", [Sigmoid(), Cosine(), LinearBeta(), EDM(), VE(), Flow()], ids=repr
)


@SCHEDULES
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
def test_it_takes_the_steps_of_the_sampler_that_it_chooses(schedule, steps):
    oracle = MixtureOracle(schedule=schedule)
    x = torch.randn(20, dtype=torch.float64)
    grid = Auto().grid(schedule, steps)
    assert len(grid) == steps and grid.start == schedule.at(1.0) and grid.end.is_end
    chosen = Auto().chosen(steps)
    assert torch.equal(end(Auto(), oracle, x, grid), end(chosen, oracle, x, grid))


@SCHEDULES
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_it_is_nearer_to_the_exact_solution_than_common_choices(schedule, steps):
    oracle = MixtureOracle(means=(-0.7, 0.6), stds=(0.2, 0.3), schedule=schedule)
    x = torch.randn(200, dtype=torch.float64)
    exact = end(UniPC(3, predict="v"), oracle, x, spaced_grid(schedule, 150, "optimal"))

    def error(sampler, grid):
        return (end(sampler, oracle, x, grid) - exact).square().mean().sqrt().item()

    own = error(Auto(), Auto().grid(schedule, steps))
    for sampler in (DDIM(), DPMSolver(), UniPC()):
        for spacing in ("time", "log_snr"):
            assert own < error(sampler, spaced_grid(schedule, steps, spacing))


def test_calls_alone_take_its_grid_and_a_spacing_replaces_it():
    diffusion = tiny_diffusion(train_prob_self_cond=0.0)
    assert diffusion.walk(1, calls=6).grid == Auto().grid(diffusion.schedule, 6)
    assert diffusion.walk(1, sampler="auto", steps=6).grid == Auto().grid(diffusion.schedule, 6)
    assert diffusion.walk(1, calls=6, spacing="time").grid == diffusion.grid(6, "time")
    raised = diffusion.walk(1, calls=6, first=8.0, last=0.5).grid
    assert raised == spaced_grid(diffusion.schedule, 6, "optimal", first=8.0, last=0.5)


def test_a_network_that_predicts_noise_starts_below_pure_noise():
    plain = {"train_prob_self_cond": 0.0}
    diffusion = tiny_diffusion(objective="eps", **plain)
    assert diffusion.sampler.amplifies and not tiny_diffusion().sampler.amplifies
    start = diffusion.walk(1, calls=5).grid.start
    assert start.sigma / start.alpha == pytest.approx(20)
    start = diffusion.walk(1, calls=20).grid.start
    assert start.sigma / start.alpha == pytest.approx(80)
    start = diffusion.walk(1, calls=5, first=300.0).grid.start
    assert start.sigma / start.alpha == pytest.approx(300)
    latents = tiny_diffusion(objective="eps", noise_schedule=ScaledLinearBeta(), **plain)
    assert latents.walk(1, calls=5).grid.start == latents.schedule.at(1.0)


def test_the_size_of_the_images_and_the_feedback_scale_its_levels():
    for feedback in (False, True):
        diffusion = GaussianDiffusion(tiny_unet(image_size=32, self_condition=feedback))
        scale = noise_scale((1, 32, 32), feedback=feedback)
        wanted = Auto().grid(diffusion.schedule, 6, scale=scale)
        assert diffusion.walk(1, calls=6).grid == diffusion.grid(6, "optimal") == wanted
        assert wanted != Auto().grid(diffusion.schedule, 6)
