import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle
from scipy.integrate import solve_ivp
from walks import Counting, even_grid, exact_flow

from diffusion_framework import EDM, Flow, Sigmoid
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.process.schedules import SquaredCosBeta
from diffusion_framework.samplers import RK45, AdaptiveDPMSolver, trajectory
from diffusion_framework.samplers.grids import Grid

SAMPLERS = [AdaptiveDPMSolver(order=2), AdaptiveDPMSolver(order=3), RK45()]


def with_tolerance(sampler, tolerance):
    return type(sampler)(**{**vars(sampler), "rtol": tolerance, "atol": tolerance})


ORACLE = MixtureOracle(stds=(0.4, 0.3))
GRID = even_grid(ORACLE.schedule, -5.0, 6.0, 1)


def run(sampler, x):
    """Returns x at the end of the grid, and the number of denoiser calls."""
    counting = Counting(ORACLE)
    return list(trajectory(sampler, counting, x, GRID, generator_noise()))[-1].x, counting.calls


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
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
    second, third, fifth = (run(with_tolerance(sampler, 1e-6), x)[1] for sampler in SAMPLERS)
    assert third < second / 2
    assert fifth < third / 2


def test_rk45_agrees_with_scipy_at_no_more_calls():
    """SciPy solves each sample in the variables of the paper, x / alpha over sigma / alpha."""
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
    scipy_calls = [
        solve_ivp(slope, span, (row / now.alpha).numpy(), rtol=1e-9, atol=1e-9).nfev for row in x
    ]
    assert counting.calls < max(scipy_calls)


@pytest.mark.parametrize(
    "sampler", [AdaptiveDPMSolver(rtol=1e-4, atol=1e-5), RK45(rtol=1e-5, atol=1e-5)], ids=repr
)
@pytest.mark.parametrize(
    "schedule", [Sigmoid(), EDM(), Flow(), SquaredCosBeta(zero_terminal_snr=True)], ids=repr
)
def test_a_grid_of_one_step_leads_from_one_end_of_every_schedule_to_the_other(sampler, schedule):
    """Some schedules have no signal at t = 1, and some have noise at t = 0."""
    oracle = GaussianOracle(schedule=schedule)
    grid = Grid([(schedule.at(1.0), schedule.clean)])
    mean, std = oracle.marginal(grid.start)
    x = mean + std * torch.randn(3, 50, dtype=torch.float64)
    end = list(trajectory(sampler, Counting(oracle), x, grid, generator_noise()))[-1].x
    assert (end - oracle.flow(x, *grid[0])).abs().max() < 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("schedule", [Sigmoid(), EDM()], ids=repr)
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(sampler, schedule):
    oracle = MixtureOracle(schedule=schedule)
    grid = even_grid(schedule, -5.0, 6.0, 1)

    def end(rows):
        return list(trajectory(sampler, oracle, rows, grid, generator_noise()))[-1].x

    x = torch.randn(11, 5, dtype=torch.float64) * grid.start.sigma
    together = end(x)
    assert torch.equal(together, torch.cat([end(row[None]) for row in x]))
    assert torch.equal(together[3:7], end(x[3:7]))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_it_stops_after_max_steps_and_at_once_on_nan(sampler):
    oracle = Counting(MixtureOracle())
    grid = Grid([(Sigmoid().at(0.99), Sigmoid().at(0.001))])
    x = torch.randn(5, 1, dtype=torch.float64)
    limited = type(sampler)(**{**vars(sampler), "max_steps": 3})
    with pytest.raises(ValueError, match="within max_steps=3 steps"):
        list(trajectory(limited, oracle, x, grid, generator_noise()))
    calls_before = oracle.calls
    x[2] = math.nan
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        list(trajectory(sampler, oracle, x, grid, generator_noise()))
    assert oracle.calls - calls_before <= 7


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdaptiveDPMSolver(order=1),
        lambda: AdaptiveDPMSolver(rtol=0.0),
        lambda: RK45(first=-1.0),
        lambda: RK45(end=0.0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()
