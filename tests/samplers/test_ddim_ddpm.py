import itertools
import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle

from diffusion_framework import DDIM, DDPM, EDM, Cosine, Flow, Sigmoid
from diffusion_framework.process.level import Prediction, ancestral_std, forward_std
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.process.schedules import Scaled
from diffusion_framework.samplers import trajectory
from diffusion_framework.samplers.grids import grid_of_times, uniform_times


def run(sampler, oracle, x, steps, seed=1, time_difference=0.0):
    grid = grid_of_times(oracle.schedule, uniform_times(steps), time_difference)
    noise = generator_noise(torch.Generator().manual_seed(seed))
    return list(trajectory(sampler, oracle, x, grid, noise))


def start(oracle, count):
    mean, std = oracle.marginal(oracle.schedule.at(1.0))
    return mean + std * torch.randn(count, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [Sigmoid(), Cosine(), Scaled(Sigmoid(), 0.5)], ids=repr)
def test_ddim_converges_to_the_probability_flow_at_first_order(schedule):
    oracle = GaussianOracle(schedule=schedule)
    x = start(oracle, 64)
    exact = oracle.flow(x, schedule.at(1.0), schedule.at(0.0))
    errors = [
        (run(DDIM(), oracle, x, n)[-1].x - exact).abs().mean().item() for n in (50, 100, 200, 400)
    ]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.8 < slope < 1.3 for slope in slopes), slopes


def test_ddim_converges_on_a_mixture():
    oracle = MixtureOracle()
    x = torch.randn(200, dtype=torch.float64)
    ends = [run(DDIM(), oracle, x, n)[-1].x for n in (100, 200, 400, 3200)]
    errors = [(end - ends[-1]).abs().mean().item() for end in ends[:-1]]
    assert errors[0] / errors[1] > 1.6 and errors[1] / errors[2] > 1.6


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [3, 20])
def test_ddim_keeps_every_marginal_of_a_point_exactly(eta, steps):
    """For data at one point the step is q(x_to | x_now, x0), so the variance of x is sigma²."""
    oracle = GaussianOracle(mean=0.7, std=0.0)
    for snapshot in run(DDIM(eta), oracle, start(oracle, 200_000), steps):
        mean, std = oracle.marginal(snapshot.to)
        assert snapshot.x.mean().item() == pytest.approx(
            mean, abs=5 * std / math.sqrt(200_000) + 1e-12
        )
        assert snapshot.x.std().item() == pytest.approx(
            std, rel=5 / math.sqrt(2 * 200_000), abs=1e-12
        )


@pytest.mark.parametrize(("variance", "std"), [("small", 0.0), ("large", 1.0)])
def test_ddpm_variances_are_exact_where_the_paper_says(variance, std):
    """Small is exact for data at one point, large for standard normal data, but not at the end."""
    oracle = GaussianOracle(mean=0.0, std=std)
    for snapshot in run(DDPM(variance), oracle, start(oracle, 200_000), 5)[:-1]:
        assert snapshot.x.std().item() == pytest.approx(
            oracle.marginal(snapshot.to)[1], rel=5 / math.sqrt(2 * 200_000)
        )


class LearnedOracle(GaussianOracle):
    """Gaussian data; predicts the optimal variance of each step of a grid, like a network."""

    def learn(self, grid, variance):
        self.learned = {}
        for now, to in grid[:-1]:
            best = self.reverse_log_variance(now, to)
            small, large = 2 * math.log(ancestral_std(now, to)), 2 * math.log(forward_std(now, to))
            assert small < best < large
            self.learned[now.t] = (
                (best - small) / (large - small) if variance == "learned_range" else (best + 1) / 2
            )

    def __call__(self, x, at, to=None):
        prediction = super().__call__(x, at)
        variance = torch.full_like(x, self.learned[at.t]) if at.t in self.learned else None
        return Prediction(prediction.x0, prediction.eps, variance)


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow()], ids=repr)
def test_ddpm_with_the_best_learned_variance_is_exact_in_any_number_of_steps(schedule, variance):
    oracle = LearnedOracle(mean=0.3, std=0.5, schedule=schedule)
    oracle.learn(grid_of_times(schedule, uniform_times(4)), variance)
    for snapshot in run(DDPM(variance), oracle, start(oracle, 200_000), 4):
        if not snapshot.to.is_end:
            mean, std = oracle.marginal(snapshot.to)
            assert snapshot.x.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(200_000))
            assert snapshot.x.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * 200_000))


def test_a_learned_variance_needs_a_network_that_predicts_one():
    with pytest.raises(ValueError, match="two outputs per channel"):
        run(DDPM("learned_range"), GaussianOracle(), torch.zeros(2), 3)
    with pytest.raises(ValueError, match="one of small, large"):
        DDPM("medium")


@pytest.mark.parametrize("sampler", [DDPM("small"), DDPM("large"), DDIM(eta=0.7)], ids=repr)
def test_stochastic_samplers_reach_the_distribution_of_a_mixture(sampler):
    oracle = MixtureOracle()
    count = 4000
    x = run(sampler, oracle, torch.randn(count, dtype=torch.float64), 1000)[-1].x.sort().values
    empirical = torch.arange(1, count + 1, dtype=torch.float64) / count
    distance = (oracle.cdf(x) - empirical).abs().max().item()
    assert distance < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov test at the level 0.001


def test_ddim_with_eta_1_equals_ddpm_with_the_small_variance():
    oracle = MixtureOracle()
    x = torch.randn(50, dtype=torch.float64)
    pairs = zip(run(DDIM(1.0), oracle, x, 20), run(DDPM("small"), oracle, x, 20), strict=True)
    for ddim, ddpm in pairs:
        torch.testing.assert_close(ddim.x, ddpm.x)


def test_the_last_step_returns_the_predicted_clean_data():
    oracle = MixtureOracle()
    for sampler in (DDIM(), DDIM(1.0), DDPM("small"), DDPM("large")):
        last = run(sampler, oracle, torch.randn(9, dtype=torch.float64), 7)[-1]
        assert last.to.is_end
        assert torch.equal(last.x, last.x0)


def test_steps_do_not_change_their_input_and_give_the_same_result_by_hand():
    oracle = MixtureOracle()
    x = torch.randn(9, dtype=torch.float64)
    grid = grid_of_times(oracle.schedule, uniform_times(6))
    for sampler in (DDIM(0.5), DDPM("large")):
        before = x.clone()
        snapshots = run(sampler, oracle, x, 6, seed=3)
        assert torch.equal(x, before)
        noise = generator_noise(torch.Generator().manual_seed(3))
        state, by_hand = sampler.init(len(grid)), x
        for now, to in grid:
            by_hand, state = sampler.step(oracle, by_hand, now, to, state, noise)
        assert torch.equal(by_hand, snapshots[-1].x)


def test_time_difference_changes_the_level_each_step_leads_to():
    """It affects both samplers, unlike in the published DDIM, which computes the level before."""
    plain, shifted = (grid_of_times(Sigmoid(), uniform_times(10), d) for d in (0.0, 0.05))
    for (now, to), (now_shifted, to_shifted) in zip(plain, shifted, strict=True):
        assert now == now_shifted
        assert to_shifted.t == pytest.approx(max(to.t - 0.05, 0.0))
        assert to_shifted == Sigmoid().at(to_shifted.t)
    oracle = MixtureOracle()
    x = torch.randn(9, dtype=torch.float64)
    for sampler in (DDIM(), DDPM()):
        assert not torch.allclose(
            run(sampler, oracle, x, 10)[3].x, run(sampler, oracle, x, 10, 1, 0.05)[3].x
        )


@pytest.mark.parametrize(
    "make", [lambda: DDIM(eta=-0.1), lambda: DDIM(eta=1.1), lambda: DDPM(variance="medium")]
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()
