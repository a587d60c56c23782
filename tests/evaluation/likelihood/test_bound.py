"""Tests of the variational bound and its report."""

import itertools
import math

import numpy as np
import pytest
import torch
from discrete_process import BETAS, SCHEDULE, term_by_hand
from oracles import GaussianOracle
from toys import SelfConditioned, tiny_diffusion

from diffusion_framework import EDM, Flow, GaussianDiffusion, Sigmoid
from diffusion_framework.evaluation import (
    BoundTerms,
    bits_per_dim,
    flow_bits_per_dim,
    variational_bound,
    write_bound,
)
from diffusion_framework.evaluation.likelihood.bound import _groups
from diffusion_framework.process.level import Prediction
from diffusion_framework.process.noise import generator_noise, sample_seeds
from diffusion_framework.process.posterior import log_variance
from diffusion_framework.samplers.grids import grid_of_times, respaced_times, uniform_times
from diffusion_framework.spaces import ImageSpace

DOUBLE = {"dtype": torch.float64}


class Guess:
    """Denoiser with wrong noise and a learned variance, as simple functions of x."""

    schedule = SCHEDULE

    def __call__(self, x, at, to=None):
        return Prediction.from_eps(0.7 * torch.sin(x), x, at, variance=torch.sigmoid(x))


@pytest.mark.parametrize("variance", ["small", "large", "learned", "learned_range"])
def test_the_bound_and_all_its_terms_equal_a_calculation_from_betas(variance):
    x0 = (
        torch.randint(0, 256, (4, 3, 2), generator=torch.Generator().manual_seed(1)).double()
        / 127.5
        - 1
    )
    x0[0, 0] = torch.tensor([-1.0, 1.0])
    grid = grid_of_times(SCHEDULE, uniform_times(len(BETAS)))
    draws = list(torch.randn(len(grid), *x0.shape, **DOUBLE))
    given = iter(draws)
    bound = variational_bound(Guess(), x0, grid, lambda x: next(given), variance)

    alpha_bar = np.cumprod(1 - BETAS)
    total = np.zeros(len(x0))
    for i, (step, eps) in enumerate(zip(reversed(range(len(BETAS))), draws, strict=True)):
        x = np.sqrt(alpha_bar[step]) * x0.numpy() + np.sqrt(1 - alpha_bar[step]) * eps.numpy()
        nats = term_by_hand(x0.numpy(), x, 0.7 * np.sin(x), step, variance, 1 / (1 + np.exp(-x)))
        bits = nats.mean(axis=(1, 2)) / np.log(2)
        np.testing.assert_allclose(bound.steps[:, i].numpy(), bits, rtol=1e-9)
        total += bits
    # The prior has the standard deviation of the noisiest level.
    prior = 0.5 * alpha_bar[-1] * x0.numpy() ** 2 / (1 - alpha_bar[-1])
    np.testing.assert_allclose(bound.prior.numpy(), prior.mean(axis=(1, 2)) / np.log(2), rtol=1e-9)
    np.testing.assert_allclose(bound.total.numpy(), total + bound.prior.numpy(), rtol=1e-12)


class BestVariance(GaussianOracle):
    """Denoiser of Gaussian data with the exact mean and variance of each reverse step.

    The variance is given as a learned range.
    """

    def follow(self, grid):
        self.shares = {}
        before = grid.start
        zero = torch.zeros((), **DOUBLE)
        for now, to in grid:
            ends = (Prediction(zero, zero, torch.full((), share, **DOUBLE)) for share in (0.0, 1.0))
            small, large = (
                log_variance("learned_range", end, now, to, before).item() for end in ends
            )
            exact = self.reverse_log_variance(now, to)
            self.shares[now.t] = (exact - small) / (large - small) if large > small else 0.0
            before = now
        return self

    def __call__(self, x, at, to=None):
        prediction = super().__call__(x, at)
        return Prediction(prediction.x0, prediction.eps, torch.full_like(x, self.shares[at.t]))


@pytest.mark.parametrize("steps", [5, 60])
@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow()], ids=repr)
def test_with_the_exact_reverse_steps_the_bound_is_the_entropy(schedule, steps):
    """Holds for any number of steps, since reverse steps of Gaussian data are Gaussian."""
    grid = grid_of_times(schedule, uniform_times(steps))
    oracle = BestVariance(mean=0.3, std=0.9, schedule=schedule).follow(grid)
    x0 = 0.3 + 0.9 * torch.randn(400, 500, **DOUBLE)
    bound = variational_bound(oracle, x0, grid, generator_noise(), "learned_range", bins=None)
    entropy = 0.5 * math.log2(2 * math.pi * math.e * 0.9**2)
    assert bound.total.mean().item() == pytest.approx(entropy, rel=0.01)


@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow()], ids=repr)
def test_some_of_the_terms_estimate_the_bound_of_all_steps(schedule):
    grid = grid_of_times(schedule, uniform_times(1000))
    oracle = GaussianOracle(mean=0.3, std=0.9, schedule=schedule)
    x0 = 0.3 + 0.9 * torch.randn(100, 500, **DOUBLE)
    options = {"variance": "small", "bins": None}
    every = variational_bound(oracle, x0, grid, generator_noise(), **options)
    some = variational_bound(oracle, x0, grid, generator_noise(), terms=100, **options)
    assert some.steps.shape[1] <= 100
    # without the last term, which stands for itself in both, and varies much with the noise
    exact, estimate = (float(bound.steps[:, :-1].sum(1).mean()) for bound in (every, some))
    assert estimate == pytest.approx(exact, abs=0.05)
    ends = [(now.t, to.t) for now, to in some.grid]
    assert all(reached == now for (_, reached), (now, _) in itertools.pairwise(ends))
    assert (ends[0][0], ends[-1]) == (1.0, (grid[-1][0].t, 0.0)), "the last term stays alone"


@pytest.mark.parametrize("steps", [2, 7, 100, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 20, 99, 2000])
def test_groups_of_terms_are_all_steps_in_order(steps, count):
    groups = _groups(steps, count)
    assert [step for group in groups for step in group] == list(range(steps))
    assert len(groups) <= count and all(groups)
    assert all(len(group) % 2 for group in groups[1:])


def test_by_default_the_likelihood_of_many_steps_takes_at_most_100_calls():
    diffusion = tiny_diffusion(timesteps=1000)
    calls, forward = [], diffusion.model.forward
    diffusion.model.forward = lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1]
    bound = bits_per_dim(diffusion, torch.zeros(1, 1, 8, 8), show_progress=False)
    assert 50 < len(calls) <= 100
    assert bound.total.isfinite().all()


@pytest.mark.parametrize("variance", ["small", "large"])
def test_with_fixed_variances_the_bound_lies_above_the_entropy(variance):
    oracle = GaussianOracle(std=0.5)
    x0 = 0.3 + 0.5 * torch.randn(200, 100, **DOUBLE)
    grid = grid_of_times(oracle.schedule, uniform_times(100))
    bound = variational_bound(oracle, x0, grid, generator_noise(), variance, bins=None)
    assert bound.total.mean().item() > 0.5 * math.log2(2 * math.pi * math.e * 0.5**2) + 0.02
    assert (bound.steps[:, :-1].mean(0) > 0).all()


def test_a_grid_that_is_not_a_chain_is_refused():
    x0 = torch.zeros(1, 2)
    joined = grid_of_times(SCHEDULE, uniform_times(6))
    for grid, said in (
        (grid_of_times(SCHEDULE, uniform_times(6), time_difference=0.1), "steps that join"),
        (joined[:-1], "clean end"),
        ([], "clean end"),
    ):
        with pytest.raises(ValueError, match=said):
            variational_bound(Guess(), x0, grid, generator_noise())


def test_the_bound_does_not_depend_on_the_batches_with_respaced_steps():
    diffusion = tiny_diffusion(timesteps=12)
    images = torch.randint(0, 256, (5, 1, 8, 8)) / 255
    whole = bits_per_dim(diffusion, images, steps="3,2", seed=3)
    assert [now.t for now, _ in whole.grid] == respaced_times("3,2", 12)[:-1]
    seeds = sample_seeds(3, range(5))
    parts = BoundTerms.cat(
        bits_per_dim(diffusion, images[i : i + 2], steps="3,2", seed=seeds[i : i + 2])
        for i in (0, 2, 4)
    )
    torch.testing.assert_close(whole.steps, parts.steps, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.total, parts.total, rtol=1e-5, atol=1e-6)
    assert diffusion.training
    with pytest.raises(ValueError, match="two outputs per channel"):
        bits_per_dim(diffusion, images, steps=3, variance="learned_range")


def test_likelihood_is_computed_without_self_conditioning():
    diffusion = GaussianDiffusion(SelfConditioned(), timesteps=4)
    bits_per_dim(diffusion, torch.zeros(2, 1, 4, 4))
    flow_bits_per_dim(diffusion, torch.zeros(2, 1, 4, 4), tolerance=0.1)
    assert len(diffusion.model.seen) > 8
    assert all(not self_cond.any() for _, self_cond in diffusion.model.seen)


@pytest.mark.parametrize("likelihood", [bits_per_dim, flow_bits_per_dim])
def test_data_between_the_bins_is_refused(likelihood):
    """A bin of 8 bits holds 257 values of 16 bits: its probability is not that of one of them."""
    deep = torch.full((2, 1, 8, 8), 257, dtype=torch.uint16)
    deep[1, 0, 2, 3] = 300
    with pytest.raises(ValueError, match=r"256 values, got values between them in sample 1\. Fix"):
        likelihood(tiny_diffusion(), deep)
    options = {"tolerance": 0.1} if likelihood is flow_bits_per_dim else {}
    likelihood(tiny_diffusion(space=ImageSpace(bins=65536)), deep, **options)


def test_the_table_adds_up(tmp_path):
    bound = bits_per_dim(tiny_diffusion(timesteps=5), torch.randint(0, 256, (3, 1, 8, 8)) / 255)
    write_bound(bound, tmp_path / "new" / "bound.csv")
    header, *rows = (
        line.split(",") for line in (tmp_path / "new" / "bound.csv").read_text().splitlines()
    )
    assert header == ["term", "t", "log_snr", "bits_per_dim", "standard_error"]
    assert [row[0] for row in rows] == ["prior", *["kl"] * 4, "reconstruction", "total"]
    assert sum(float(row[3]) for row in rows[:-1]) == pytest.approx(float(rows[-1][3]), rel=1e-6)
    assert float(rows[-1][3]) == pytest.approx(bound.total.mean().item(), rel=1e-6)
    assert float(rows[-1][4]) == pytest.approx(bound.total.std().item() / math.sqrt(3), rel=1e-6)
