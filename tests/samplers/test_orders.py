"""Orders of convergence of all samplers, measured with exact denoisers between two noisy levels."""

import itertools
import math

import pytest
import torch
from oracles import GaussianOracle, MixtureOracle
from walks import end, even_grid, exact_flow

from diffusion_framework import (
    DDIM,
    DDPM,
    EDM,
    LCM,
    LMS,
    Cosine,
    DPMSolver,
    Flow,
    Heun,
    Sigmoid,
    UniPC,
)
from diffusion_framework.process.level import Prediction
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.samplers import (
    DPM2,
    Churn,
    Euler,
    FlowMap,
    KarrasVE,
    Langevin,
    SinglestepDPM,
    trajectory,
)
from diffusion_framework.samplers.grids import Grid

ORDERS = [
    (DDIM(), 1),
    (Euler(), 1),
    (FlowMap(), 1),
    (Heun(), 2),
    (DPM2(), 2),
    (LMS(1), 1),
    (LMS(2), 2),
    (LMS(3), 3),
    (LMS(4), 4),
    *[(DPMSolver(order, predict), order) for order in (1, 2, 3) for predict in ("x0", "eps")],
    (DPMSolver(2, weights="midpoint"), 2),
    (DPMSolver(2, "eps", weights="midpoint"), 2),
    *[(UniPC(order, variant), order + 1) for order in (1, 2, 3) for variant in ("bh1", "bh2")],
    *[
        (UniPC(order, variant, corrector=False), order)
        for order in (2, 3)
        for variant in ("bh1", "bh2")
    ],
    *[(UniPC(order, predict="v"), order + 1) for order in (1, 2, 3)],
    *[(UniPC(order, corrector=False, predict="v", sigma_data=1.0), order) for order in (1, 2, 3)],
    (Churn(LMS(3), s_churn=0.0), 3),
    *[(SinglestepDPM(order, predict), order) for order in (1, 2, 3) for predict in ("x0", "eps")],
]


@pytest.mark.parametrize(("sampler", "order"), ORDERS, ids=lambda v: repr(v))
@pytest.mark.parametrize("schedule", [Sigmoid(), Cosine()], ids=repr)
def test_the_measured_order_is_the_stated_one(sampler, order, schedule):
    oracle = MixtureOracle(means=(-0.7, 0.6), stds=(0.4, 0.3), schedule=schedule)
    x = torch.randn(40, dtype=torch.float64)
    grids = [even_grid(schedule, -3.0, 4.0, n, graded=14) for n in (40, 80, 160)]
    exact = exact_flow(oracle, x, grids[0][0][0], grids[0][-1][1])
    errors = [(end(sampler, oracle, x, grid) - exact).abs().mean().item() for grid in grids]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert order - 0.3 < slopes[-1] < order + 0.6, slopes


@pytest.mark.parametrize(("sampler", "order"), ORDERS, ids=lambda v: repr(v))
def test_every_sampler_reaches_the_exact_solution_for_gaussian_data(sampler, order):
    oracle = GaussianOracle(mean=0.3, std=0.5)
    first, last = -6.0, 8.0
    grid = even_grid(oracle.schedule, first, last, 200)
    grid = Grid([*grid, (grid.end, oracle.schedule.at(0.0))])
    now = grid.start
    mean, std = oracle.marginal(now)
    x = mean + std * torch.randn(100, dtype=torch.float64)
    error = (
        (end(sampler, oracle, x, grid) - oracle.flow(x, now, oracle.schedule.at(0.0)))
        .abs()
        .max()
        .item()
    )
    assert error < (0.05 if order == 1 else 0.01)


@pytest.mark.parametrize(
    ("order", "predict"), [(1, "x0"), (2, "x0"), (3, "x0"), (2, "eps"), (3, "eps")]
)
def test_the_stochastic_solver_keeps_mean_and_variance(order, predict):
    oracle = GaussianOracle(mean=0.4, std=0.3)
    grid = even_grid(oracle.schedule, -8.0, 10.0, 150 if predict == "x0" else 600)
    mean, std = oracle.marginal(grid.start)
    count = 100_000
    x = end(
        DPMSolver(order, predict, eta=1.0),
        oracle,
        mean + std * torch.randn(count, dtype=torch.float64),
        grid,
    )
    mean, std = oracle.marginal(grid.end)
    bias = 0.04 if order == 1 else 0.004  # bias of the method, added to five standard errors
    assert x.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(count) + bias * std)
    assert x.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count) + bias)


@pytest.mark.parametrize("schedule", [Sigmoid(), Flow(), EDM()], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_predicting_velocity_is_exact_for_gaussian_data_of_std_sigma_data_in_any_number_of_steps(
    schedule, steps
):
    """From t = 1, which is pure noise on some schedules, to clean data."""
    oracle = GaussianOracle(mean=0.0, std=0.3, schedule=schedule)
    times = [1 - i / steps for i in range(steps + 1)]
    grid = Grid(
        (schedule.at(a), schedule.at(b) if b else schedule.clean)
        for a, b in itertools.pairwise(times)
    )
    x = torch.randn(20, dtype=torch.float64) * oracle.marginal(grid.start)[1]
    expected = oracle.flow(x, grid.start, grid.end)
    torch.testing.assert_close(
        end(UniPC(3, predict="v", sigma_data=0.3), oracle, x, grid), expected
    )


class Inexact(GaussianOracle):
    """A denoiser whose noise is off by a hundredth, each time in another way."""

    calls = 0

    def __call__(self, x, at, to=None):
        self.calls += 1
        off = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(self.calls))
        return Prediction.from_eps(super().__call__(x, at).eps + off, x, at)


@pytest.mark.parametrize("sampler", [DPM2(), Heun(), *(SinglestepDPM(n, "eps") for n in (2, 3))])
def test_a_step_over_more_than_a_factor_of_ten_is_one_of_ddim(sampler):
    """Two predictions of noise differ by errors that such a step would magnify."""
    schedule = Sigmoid()
    for ratio, is_long in ((9.9, False), (10.1, True)):
        now, to = (schedule.at_log_snr(-2 * math.log(s)) for s in (ratio, 1.0))
        oracle, x = Inexact(), torch.randn(20, dtype=torch.float64)
        moved, _ = sampler.step(oracle, x, now, to, sampler.init(1), None)
        single, _ = DDIM().step(Inexact(), x, now, to, None, None)
        assert (oracle.calls == 1) == torch.equal(moved, single) == is_long
    levels = [schedule.at_log_snr(value) for value in (-20.7, -9.0, -3.0, 2.0)]
    grid = Grid(itertools.pairwise([*levels, schedule.clean]))
    x = torch.randn(500, dtype=torch.float64)
    ends = [end(one, Inexact(), x, grid) for one in (sampler, DDIM())]
    exact = GaussianOracle().flow(x, grid.start, grid.end)
    errors = [(x - exact).square().mean().sqrt() for x in ends]
    assert errors[0] < 1.5 * errors[1]


RESUMED = [
    UniPC(3, predict="v"),
    DDIM(0.5),
    DDPM(),
    LMS(4),
    DPMSolver(3),
    DPMSolver(2, eta=0.5),
    Heun(),
    UniPC(3),
    KarrasVE(),
    Langevin(),
]


@pytest.mark.parametrize("sampler", RESUMED, ids=repr)
def test_a_run_stepped_by_hand_with_other_runs_in_between_is_bit_equal(sampler):
    oracle = MixtureOracle()
    x = torch.randn(9, dtype=torch.float64)
    grid = even_grid(oracle.schedule, -5.0, 5.0, 8)
    expected = end(sampler, oracle, x, grid)
    noise = generator_noise(torch.Generator().manual_seed(1))
    state = sampler.init(len(grid))
    for now, to in grid:
        x, state = sampler.step(oracle, x, now, to, state, noise)
        other_x = torch.randn(9, dtype=torch.float64)
        list(trajectory(sampler, oracle, other_x, grid, generator_noise()))  # another run
    assert torch.equal(x, expected)


@pytest.mark.parametrize(
    "sampler",
    [LMS(4), DPMSolver(3), DPMSolver(3, "eps"), DPMSolver(2, eta=1.0), UniPC(3)],
    ids=repr,
)
def test_multistep_methods_end_on_finite_data_at_sigma_0(sampler):
    """No polynomial in log-SNR passes through sigma = 0, so the last step is a special case."""
    oracle = MixtureOracle()
    grid = even_grid(oracle.schedule, -5.0, 6.0, 20)
    grid = Grid([*grid, (grid.end, oracle.schedule.at(0.0))])
    x = end(sampler, oracle, torch.randn(50, dtype=torch.float64), grid)
    assert torch.isfinite(x).all()
    assert x.abs().max() < 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: LMS(0),
        lambda: LMS(5),
        lambda: DPMSolver(4),
        lambda: DPMSolver(3, weights="midpoint"),
        lambda: DPMSolver(eta=2.0),
        lambda: UniPC(predict="eps"),
        lambda: UniPC(sigma_data=0.0),
        lambda: UniPC(4),
        lambda: SinglestepDPM(4),
        lambda: UniPC(variant="bh3"),
        lambda: Churn(s_churn=-1.0),
        lambda: Langevin(snr=0.0),
        lambda: LCM(sigma_data=0.0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()
