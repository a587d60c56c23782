"""Moments of what stochastic samplers return, in few and in many dimensions."""

import math

import pytest
import torch
from oracles import GaussianOracle
from walks import end

from diffusion_framework import DDIM, DDPM, DPMSolver, ScoreSDE, Sigmoid
from diffusion_framework.process.schedules import VE
from diffusion_framework.samplers import Churn, Langevin, ReverseDiffusion
from diffusion_framework.samplers.grids import grid_of_times, uniform_times

COUNT = 16_384  # numbers in a batch, of any number of dimensions
SAMPLERS = [
    DDPM(),
    DDPM("large"),
    DDIM(eta=0.5),
    ReverseDiffusion(),
    ReverseDiffusion("euler_maruyama"),
    Churn(s_churn=20.0, s_min=0.0, s_max=1e9),
    DPMSolver(2, eta=1.0),
    Langevin(snr=0.1),
    Langevin(DDIM(), snr=0.1, correct_steps=2),
    ScoreSDE(),
]
ORACLES = [GaussianOracle(0.4, 0.5, schedule) for schedule in (VE(), Sigmoid())]


def samples(sampler, oracle, dimensions, steps):
    """Returns samples [batch, dimensions] from the exact marginal at t = 1."""
    grid = grid_of_times(oracle.schedule, uniform_times(steps))
    mean, std = oracle.marginal(grid.start)
    noise = torch.randn(COUNT // dimensions, dimensions, dtype=torch.float64)
    return end(sampler, oracle, mean + std * noise, grid, seed=dimensions)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: type(oracle.schedule).__name__)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_mean_variance_and_covariance_are_those_of_the_data_in_any_number_of_dimensions(
    sampler, oracle
):
    """Up to three standard errors, and a bias that halves when the number of steps doubles.

    A correction of Langevin dynamics has a bias of its own, snr² of the variance.
    """
    mean_error, error = 3 * 0.5 / math.sqrt(COUNT), 3 * math.sqrt(2 / COUNT)
    snr = sampler.snr if isinstance(sampler, Langevin | ScoreSDE) else 0.0
    bias = abs(samples(sampler, oracle, 64, steps=30).var().item() / 0.25 - 1)
    for dimensions in (1, 2, 4, 64):
        x = samples(sampler, oracle, dimensions, steps=60)
        assert x.mean().item() == pytest.approx(0.4, abs=mean_error + 0.004)
        allowed = (bias + error) / 2 + error + snr**2
        assert x.var().item() / 0.25 == pytest.approx(1, abs=allowed), dimensions
        off = torch.corrcoef(x.T).reshape(dimensions, dimensions) - torch.eye(dimensions)
        assert off.abs().max() < 5 / math.sqrt(len(x))  # five for the largest of 2,016 pairs


def test_a_langevin_correction_is_the_step_of_its_formula_in_any_number_of_dimensions():
    """x + e score + sqrt(2 e) z with e = 2 (snr sigma)², whatever the noise and the batch are."""
    for oracle in ORACLES:
        now, to = oracle.schedule.at(0.4), oracle.schedule.at(0.3)
        size = 2 * (0.2 * now.sigma * now.alpha / to.alpha) ** 2
        for dimensions in (1, 64):
            x, z = torch.randn(2, 5, dimensions, dtype=torch.float64)
            expected = x - size / now.sigma * oracle(x, now).eps + math.sqrt(2 * size) * z
            moved, _ = Langevin(DDIM(), snr=0.2).step(oracle, x, now, to, None, lambda x, z=z: z)
            torch.testing.assert_close(moved, DDIM().step(oracle, expected, now, to, None, None)[0])
