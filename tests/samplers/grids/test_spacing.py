"""Spacings in few steps, on mixtures whose denoiser is exact."""

import math

import pytest
import torch
from oracles import MixtureOracle
from walks import end

from diffusion_framework import Cosine, Sigmoid, UniPC
from diffusion_framework.process.objectives import X0, Eps, V
from diffusion_framework.process.schedules import (
    Flow,
    Linear,
    LinearBeta,
    ScaledLinearBeta,
    SquaredCosBeta,
)
from diffusion_framework.samplers.grids import noise_scale, spaced_grid

MIXTURES = [
    {},
    {"means": (-0.8, 0.0, 0.6), "stds": (0.03, 0.05, 0.02), "weights": (0.3, 0.3, 0.4)},
    {"means": (-0.5, 0.5), "stds": (0.4, 0.3), "weights": (0.5, 0.5)},
]
SCHEDULES = [
    Sigmoid(),
    Cosine(),
    Linear(),
    LinearBeta(),
    ScaledLinearBeta(),
    SquaredCosBeta(),
    SquaredCosBeta(zero_terminal_snr=True),
    Sigmoid(tau=2.0),
    Cosine(start=0.2, tau=1.5),
]


class Network:
    """An exact denoiser whose prediction passes through the output of an objective."""

    def __init__(self, oracle, objective):
        self.oracle, self.objective, self.schedule = oracle, objective, oracle.schedule

    def __call__(self, x, at, to=None):
        exact = self.oracle(x, at)
        return self.objective.prediction(self.objective.target(exact.x0, exact.eps, at), x, at)


def transported(oracle, x, level):
    """Returns the exact end of the flow: in one dimension it maps quantiles to quantiles."""
    wide = [math.hypot(level.alpha * std, level.sigma) for std in oracle.stds]
    noised = MixtureOracle([level.alpha * m for m in oracle.means], wide, oracle.weights)
    target, low, high = noised.cdf(x), torch.full_like(x, -9.0), torch.full_like(x, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = oracle.cdf(middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return middle


def errors(schedule, mixture, steps, objective=None):
    """Returns the rms error of UniPC of order 2 on v at the clean end.

    One list for each number of steps holds the errors even in time, in log-SNR, and optimal.
    """
    oracle = MixtureOracle(schedule=schedule, **mixture)
    network = Network(oracle, objective) if objective else oracle
    first = schedule.at(1.0)
    x = first.sigma * torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    exact = transported(oracle, x, first)

    def error(grid):
        got = end(UniPC(2, predict="v"), network, x, grid)
        return (got - exact).square().mean().sqrt().item()

    spacings = ("time", "log_snr", "optimal")
    return [[error(spaced_grid(schedule, n, spacing)) for spacing in spacings] for n in steps]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("mixture", MIXTURES, ids=["two", "narrow", "wide"])
def test_no_spacing_by_noise_is_worse_than_even_in_time(schedule, mixture):
    for even, *others in errors(schedule, mixture, (5, 10, 20)):
        assert max(others) < 1.1 * even, (even, others)


@pytest.mark.parametrize("objective", [V(), X0(), Eps()], ids=repr)
def test_the_spacings_serve_every_objective(objective):
    for schedule in (Sigmoid(), Cosine()):
        ((even, *others),) = errors(schedule, {}, (10,), objective)
        assert max(others) < 1.1 * even


@pytest.mark.parametrize("scale", [0.5, 2.7])
def test_the_scale_multiplies_the_levels_of_few_steps(scale):
    def sigmas(last, **options):
        grid = spaced_grid(Flow(), 8, "optimal", last=last, **options)
        return [now.sigma / now.alpha for now, _ in grid[1:]]

    assert sigmas(0.2 * scale, scale=scale) == pytest.approx([scale * s for s in sigmas(0.2)])


def test_larger_images_take_more_noise_and_other_data_do_not():
    scales = [noise_scale((3, side, side)) for side in (4, 8, 16, 32, 64, 256)]
    assert scales[0] == scales[1] == 1 and scales[4] == scales[5]
    assert scales[1:5] == sorted(set(scales[1:5]))
    assert noise_scale((3, 16, 64)) == noise_scale((1, 32, 32))
    assert noise_scale((16, 2)) == noise_scale((4000,)) == 1
    for shape in ((3, 32, 32), (16, 2)):
        assert noise_scale(shape, feedback=True) > noise_scale(shape)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_last_step_of_few_becomes_shorter_with_their_number(scale):
    grids = [spaced_grid(Flow(), steps, "optimal", scale=scale) for steps in (2, 5, 10, 20, 50)]
    lasts = [grid[-1][0].sigma / grid[-1][0].alpha for grid in grids]
    assert lasts == sorted(lasts, reverse=True)
    assert all(last * len(grid) < 1.2 + 1e-9 for last, grid in zip(lasts, grids, strict=True))
