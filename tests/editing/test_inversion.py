"""Tests of inversion and interpolation."""

import itertools
import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle
from toys import SelfConditioned, tiny_diffusion

from diffusion_framework import DDIM, DDPM, EDM, Flow, GaussianDiffusion, Heun, Sigmoid
from diffusion_framework.editing import decode, interpolate, invert, slerp, walk_back
from diffusion_framework.samplers import trajectory
from diffusion_framework.samplers.grids import (
    grid_of_log_snrs,
    grid_of_times,
    uniform_angles,
    uniform_times,
)

SCHEDULES = [Sigmoid(), EDM(), Flow()]


def angles(schedule, steps):
    return grid_of_log_snrs(schedule, uniform_angles(schedule, steps), clean=False)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_inversion_finds_the_noise_of_the_exact_flow(schedule):
    oracle = GaussianOracle(schedule=schedule)
    x0 = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    grid = angles(schedule, 200)
    start = grid.end
    exact = oracle.flow(start.alpha * x0, start, grid.start)
    got = walk_back(oracle, x0, grid, Heun())
    torch.testing.assert_close(got / grid.start.sigma, exact / grid.start.sigma, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (Heun(), 2)], ids=repr)
def test_the_round_trip_has_the_order_of_the_sampler(sampler, order):
    oracle = MixtureOracle(stds=(0.3, 0.4))
    x0 = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    errors = []
    for steps in (100, 200, 400):
        grid = angles(oracle.schedule, steps)
        *_, last = trajectory(sampler, oracle, walk_back(oracle, x0, grid, sampler), grid, None)
        errors.append((last.x / grid.end.alpha - x0).abs().mean().item())
    assert all(math.log2(a / b) > order - 0.3 for a, b in itertools.pairwise(errors)), errors


def test_decoding_inverts_inversion_without_self_conditioning():
    diffusion = tiny_diffusion()
    images = torch.rand(3, 1, 8, 8)
    latents = invert(diffusion, images, steps=50)
    assert (decode(diffusion, latents, steps=50) - images).abs().max() < 1e-3
    assert diffusion.training
    network = SelfConditioned()
    decode(GaussianDiffusion(network), torch.randn(2, 1, 4, 4), steps=3)
    assert all(not self_cond.any() for _, self_cond in network.seen)


def test_interpolation_begins_and_ends_with_the_images():
    diffusion = tiny_diffusion()
    first, second = torch.rand(2, 2, 1, 8, 8)
    line = interpolate(diffusion, first, second, count=3, steps=20)
    assert line.shape == (2, 3, 1, 8, 8)
    torch.testing.assert_close(line[:, 0], first, rtol=0, atol=5e-3)
    torch.testing.assert_close(line[:, -1], second, rtol=0, atol=5e-3)
    assert (line[:, 1] - line[:, 0]).abs().mean() > 1e-2 and (
        line[:, 1] - line[:, 2]
    ).abs().mean() > 1e-2
    with pytest.raises(ValueError, match="at least 2"):
        interpolate(diffusion, first, second, count=1)


def test_slerp_keeps_the_length_and_divides_the_angle():
    a, b = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    a, b = (v / v.flatten(1).norm(dim=1)[:, None, None] for v in (a, b))
    angle = torch.acos((a * b).flatten(1).sum(1))
    for share in (0.0, 0.25, 0.5, 1.0):
        point = slerp(a, b, share)
        torch.testing.assert_close(point.flatten(1).norm(dim=1), torch.ones(5, dtype=torch.float64))
        torch.testing.assert_close(
            torch.acos((a * point).flatten(1).sum(1).clamp(-1, 1)), share * angle, atol=1e-7, rtol=0
        )
    torch.testing.assert_close(slerp(a, a, 0.3), a)


def test_bad_input_is_refused():
    oracle = GaussianOracle()
    x0 = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="without noise for inversion, got DDPM"):
        walk_back(oracle, x0, angles(oracle.schedule, 5), DDPM())
    with pytest.raises(ValueError, match="clean=False"):
        walk_back(oracle, x0, grid_of_times(oracle.schedule, uniform_times(5)), DDIM())
    with pytest.raises(ValueError, match="last_sigma"):
        uniform_angles(oracle.schedule, 5, last_sigma=0.0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_uniform_angles_are_even_and_within_the_schedule(schedule):
    grid = angles(schedule, 16)
    assert len(grid) == 16 and grid.start.log_snr == schedule.at(1.0).log_snr
    levels = [grid.start, *(to for _, to in grid)]
    steps = [
        math.atan2(a.sigma, a.alpha) - math.atan2(b.sigma, b.alpha)
        for a, b in itertools.pairwise(levels)
    ]
    assert steps == pytest.approx([steps[0]] * 16, rel=1e-6)
    assert levels[-1].sigma / levels[-1].alpha == pytest.approx(
        max(1e-3, schedule.at(0.0).sigma), rel=1e-9
    )
