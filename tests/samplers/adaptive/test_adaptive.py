import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle
from scipy.integrate import solve_ivp
from walks import Counting, even_grid, exact_flow

from diffusion_framework import EDM, RK45, AdaptiveDPMSolver, Flow, Sigmoid, SquaredCosBeta, trajectory
from diffusion_framework.process.noise import generator_noise

KINDS = [AdaptiveDPMSolver(order=2), AdaptiveDPMSolver(order=3), RK45()]


def with_tolerance(sampler, tolerance):
    return type(sampler)(**{**vars(sampler), "rtol": tolerance, "atol": tolerance})


ORACLE = MixtureOracle(stds=(0.4, 0.3))
GRID = even_grid(ORACLE.schedule, -5.0, 6.0, 1)


def run(sampler, x):
    counting = Counting(ORACLE)
    return list(trajectory(sampler, counting, x, GRID, generator_noise()))[-1].x, counting.calls


@pytest.mark.parametrize("sampler", KINDS, ids=repr)
def test_the_error_follows_the_tolerance(sampler):
    x = torch.randn(20, 1, dtype=torch.float64)
    exact = exact_flow(ORACLE, x.flatten(), *GRID[0]).reshape(x.shape)
    errors, calls = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        end, count = run(with_tolerance(sampler, tolerance), x)
        errors.append((end - exact).abs().max().item())
        calls.append(count)
        assert errors[-1] < 20 * tolerance
    assert errors[0] > errors[1] > errors[2]
    assert calls[0] < calls[1] < calls[2]


def test_a_higher_order_needs_fewer_calls_for_a_small_error():
    x = torch.randn(20, 1, dtype=torch.float64)
    second, third, fifth = (run(with_tolerance(sampler, 1e-6), x)[1] for sampler in KINDS)
    assert third < second / 2
    assert fifth < third / 2


def test_rk45_ends_where_another_library_does_for_as_many_calls():
    """Sample by sample, in the variables of the paper: x / alpha over sigma / alpha."""
    x = torch.randn(4, 16, dtype=torch.float64)
    oracle = MixtureOracle()
    now, to = Sigmoid().at(0.9), Sigmoid().at(0.01)
    counting = Counting(oracle)
    ends, _ = RK45(rtol=1e-9, atol=1e-9).step(counting, x, now, to, None, generator_noise())
    exact = torch.stack([exact_flow(oracle, row, now, to) for row in x])
    assert (ends - exact).abs().max() < 1e-7

    def slope(s, scaled):
        at = oracle.schedule.at_log_snr(-2 * math.log(s))
        return oracle(torch.from_numpy(scaled) * at.alpha, at).eps.numpy()

    span = (now.sigma / now.alpha, to.sigma / to.alpha)
    theirs = [solve_ivp(slope, span, (row / now.alpha).numpy(), rtol=1e-9, atol=1e-9).nfev for row in x]
    assert counting.calls < max(theirs)


@pytest.mark.parametrize("sampler", [AdaptiveDPMSolver(rtol=1e-4, atol=1e-5), RK45(rtol=1e-5, atol=1e-5)], ids=repr)
@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow(), SquaredCosBeta(zero_terminal_snr=True)], ids=repr)
def test_one_step_of_a_grid_leads_from_one_end_of_every_schedule_to_the_other(sampler, schedule):
    """From t = 1, where some have no signal at all, to the clean end, which some only have beyond t = 0."""
    oracle = GaussianOracle(schedule=schedule)
    grid = [(schedule.at(1.0), schedule.clean)]
    mean, std = oracle.marginal(grid[0][0])
    x = mean + std * torch.randn(3, 50, dtype=torch.float64)
    end = list(trajectory(sampler, Counting(oracle), x, grid, generator_noise()))[-1].x
    assert (end - oracle.flow(x, *grid[0])).abs().max() < 1e-3


@pytest.mark.parametrize("sampler", KINDS, ids=repr)
@pytest.mark.parametrize("schedule", [Sigmoid(), EDM()], ids=repr)
def test_a_sample_does_not_depend_on_its_batch_mates(sampler, schedule):
    oracle = MixtureOracle(schedule=schedule)
    grid = even_grid(schedule, -5.0, 6.0, 1)

    def end(rows):
        return list(trajectory(sampler, oracle, rows, grid, generator_noise()))[-1].x

    x = torch.randn(11, 5, dtype=torch.float64) * grid[0][0].sigma
    together = end(x)
    assert torch.equal(together, torch.cat([end(row[None]) for row in x]))
    assert torch.equal(together[3:7], end(x[3:7]))


@pytest.mark.parametrize("sampler", KINDS, ids=repr)
def test_it_gives_up_when_told_and_at_once_where_the_network_fails(sampler):
    oracle = Counting(MixtureOracle())
    grid = [(Sigmoid().at(0.99), Sigmoid().at(0.001))]
    x = torch.randn(5, 1, dtype=torch.float64)
    steps = type(sampler)(**{**vars(sampler), "max_steps": 3})
    with pytest.raises(ValueError, match="no end after max_steps=3"):
        list(trajectory(steps, oracle, x, grid, generator_noise()))
    calls = oracle.calls
    x[2] = math.nan
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        list(trajectory(sampler, oracle, x, grid, generator_noise()))
    assert oracle.calls - calls <= 7


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdaptiveDPMSolver(order=1),
        lambda: AdaptiveDPMSolver(rtol=0.0),
        lambda: RK45(first=-1.0),
        lambda: RK45(end=0.0),
    ],
)
def test_bad_options(make):
    with pytest.raises(ValueError, match="got"):
        make()
