"""Stochastic samplers on data with known marginals."""

import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle
from walks import end, even_grid

from diffusion_framework import DDIM, DDPM, LCM, DPMSolver, Heun, ScoreSDE, Sigmoid
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.process.schedules import VE, LinearBeta, SquaredCosBeta
from diffusion_framework.samplers import Churn, KarrasVE, Langevin, ReverseDiffusion, trajectory
from diffusion_framework.samplers.grids import grid_of_times, uniform_times

COUNT = 50_000


def start(oracle, level, count=COUNT):
    mean, std = oracle.marginal(level)
    return mean + std * torch.randn(count, dtype=torch.float64)


@pytest.mark.parametrize(
    ("sampler", "bias"),
    [
        (KarrasVE(), 0.01),
        (Churn(DPMSolver(2), s_churn=30.0), 0.03),
        (Churn(DDIM(), s_churn=10.0, s_min=0.0, s_max=1e9), 0.04),
        (ReverseDiffusion(), 0.03),
        (ReverseDiffusion("euler_maruyama"), 0.03),
        (Langevin(snr=0.02), 0.04),
        (Langevin(ReverseDiffusion(), snr=0.02, correct_steps=2), 0.04),
    ],
    ids=repr,
)
def test_mean_and_variance_match_the_data(sampler, bias):
    oracle = GaussianOracle(mean=0.4, std=0.5)
    grid = even_grid(oracle.schedule, -7.0, 7.0, 200)
    x = start(oracle, grid.start, 64_000).reshape(1000, 64)
    x = end(sampler, oracle, x, grid)
    mean, std = oracle.marginal(grid.end)
    assert x.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(x.numel()) + bias * std)
    assert x.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * x.numel()) + bias)


def test_churn_raises_the_level_and_keeps_the_marginal_there():
    oracle = GaussianOracle(mean=0.4, std=0.5)
    grid = even_grid(oracle.schedule, -2.0, 2.0, 4)
    seen = []

    class RecordingHeun(Heun):
        def step(self, denoise, x, now, to, state, noise):
            seen.append((x, now))
            return super().step(denoise, x, now, to, state, noise)

    sampler = Churn(RecordingHeun(), s_churn=1.0, s_min=0.0, s_max=1e9)
    noise = generator_noise(torch.Generator().manual_seed(1))
    sampler.step(oracle, start(oracle, grid.start), *grid[0], sampler.init(4), noise)
    ((x, level),) = seen
    before = grid.start
    assert level.sigma / level.alpha == pytest.approx(1.25 * before.sigma / before.alpha)
    mean, std = oracle.marginal(level)
    assert x.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(COUNT))
    assert x.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * COUNT))


def test_churn_outside_its_range_does_nothing():
    oracle = MixtureOracle()
    grid = even_grid(oracle.schedule, -4.0, 4.0, 10)
    x = torch.randn(20, dtype=torch.float64)
    ratio = grid.end.sigma / grid.end.alpha
    idle = Churn(Heun(), s_churn=40.0, s_min=0.0, s_max=ratio)
    assert torch.equal(end(idle, oracle, x, grid), end(Heun(), oracle, x, grid))
    assert not torch.equal(
        end(Churn(Heun(), s_churn=40.0), oracle, x, grid), end(Heun(), oracle, x, grid)
    )


def test_langevin_treats_each_sample_independently_of_the_batch():
    oracle = MixtureOracle()
    grid = even_grid(oracle.schedule, -4.0, 4.0, 5)
    x = torch.randn(3, 8, dtype=torch.float64)
    noise = torch.randn(100, 3, 8, dtype=torch.float64)

    def run(rows):
        draws = iter(noise[:, rows])
        return list(trajectory(Langevin(), oracle, x[rows], grid, lambda _: next(draws)))[-1].x

    assert torch.allclose(run([0, 1, 2])[1], run([1])[0], rtol=1e-12)


def published_score_sde(oracle, x, grid, predictor, snr, corrections, noise):
    """Song et al. 2021b, Alg. 2 and 4 (VE), 3 and 5 (VP), in the paper's beta, sigma and score.

    The ratio of the norms of noise and score, on which the paper's step size depends, is sigma.
    """
    is_ve = grid.start.alpha == 1
    for now, to in grid:
        beta = 1 - (now.alpha / to.alpha) ** 2
        fall = now.sigma**2 - to.sigma**2  # VE
        for _ in range(corrections):
            score, z = -oracle(x, now).eps / now.sigma, noise(x)
            size = 2 * (1 - beta) * (snr * now.sigma) ** 2
            x = x + size * score + math.sqrt(2 * size) * z
        score = -oracle(x, now).eps / now.sigma
        if to.is_end:
            return (x + now.sigma**2 * score) / now.alpha  # denoised mean by Tweedie's formula
        z = noise(x)
        if is_ve:
            variance = fall * to.sigma**2 / now.sigma**2 if predictor == "ancestral" else fall
            x = x + fall * score + math.sqrt(variance) * z
        elif predictor == "ancestral":
            x = (x + beta * score) / math.sqrt(1 - beta) + math.sqrt(beta) * z
        else:
            x = (2 - math.sqrt(1 - beta)) * x + beta * score + math.sqrt(beta) * z
    raise AssertionError("the grid has no end")


def test_samplers_of_the_papers_are_what_they_are_made_of():
    oracle = MixtureOracle()
    x = torch.randn(9, dtype=torch.float64)
    grid = even_grid(oracle.schedule, -5.0, 5.0, 8)
    for named, made in (
        (KarrasVE(s_max=9.0), Churn(Heun(), 80.0, 0.05, 9.0, 1.007)),
        (ScoreSDE(snr=0.1), Langevin(ReverseDiffusion(), 0.1)),
    ):
        assert torch.equal(end(named, oracle, x, grid), end(made, oracle, x, grid))


@pytest.mark.parametrize("corrections", [0, 2])
@pytest.mark.parametrize("predictor", ["reverse diffusion", "ancestral"])
@pytest.mark.parametrize("schedule", [VE(), LinearBeta()], ids=repr)
def test_score_sde_equals_the_published_sampler(schedule, predictor, corrections):
    oracle = MixtureOracle(schedule=schedule)
    grid = grid_of_times(schedule, uniform_times(12))
    step = (
        ReverseDiffusion()
        if predictor != "ancestral"
        else DDPM("small" if schedule == VE() else "large")
    )
    x = grid.start.sigma * torch.randn(6, 20, dtype=torch.float64)
    samples = end(ScoreSDE(step, 0.16, corrections), oracle, x, grid)
    noise = generator_noise(torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        samples, published_score_sde(oracle, x, grid, predictor, 0.16, corrections, noise)
    )


@pytest.mark.parametrize(
    ("schedule", "step"),
    [
        (VE(), ReverseDiffusion()),
        (VE(), DDPM()),
        (Sigmoid(), ReverseDiffusion("euler_maruyama")),
        (SquaredCosBeta(zero_terminal_snr=True), ReverseDiffusion()),
        (SquaredCosBeta(zero_terminal_snr=True), ReverseDiffusion("euler_maruyama")),
    ],
    ids=repr,
)
def test_score_sde_reaches_the_data_from_pure_noise(schedule, step):
    """Also from a level without signal. Corrections multiply the variance by 1 + snr²."""
    oracle = GaussianOracle(mean=0.4, std=0.5, schedule=schedule)
    grid = grid_of_times(schedule, uniform_times(200))
    x = start(oracle, grid.start, 40_000).reshape(40, 1000)
    for snr, corrections in ((0.16, 0), (0.2, 1)):
        last = end(ScoreSDE(step, snr, corrections), oracle, x, grid)
        assert last.mean().item() == pytest.approx(0.4, abs=0.5 * (5 / math.sqrt(40_000) + 0.01))
        expected = 0.25 * (1 + snr**2 * corrections)
        assert last.var().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / 40_000) + 0.03)


def test_consistency_sampling_has_exact_marginals_for_data_at_one_point():
    """The consistency function of data at one point is that point, so every marginal is exact."""
    oracle = GaussianOracle(mean=0.6, std=0.0)
    grid = even_grid(Sigmoid(), -6.0, 4.0, 4)
    noise = generator_noise(torch.Generator().manual_seed(1))
    sampler = LCM(timestep_scaling=1e9)  # c_skip = 0: no boundary condition
    for snapshot in trajectory(sampler, oracle, start(oracle, grid.start), grid, noise):
        mean, std = oracle.marginal(snapshot.to)
        assert snapshot.x.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(COUNT))
        assert snapshot.x.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * COUNT))


def test_consistency_sampling_satisfies_its_boundary_condition():
    """At training step 0 the consistency function is the identity for any network."""
    level, clean = Sigmoid().at(1 / 1000), Sigmoid().at(0.0)
    x = torch.randn(5, dtype=torch.float64)
    sampler = LCM()
    out, _ = sampler.step(MixtureOracle(), x, level, clean, sampler.init(1), generator_noise())
    torch.testing.assert_close(out, x)
