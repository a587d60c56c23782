"""iPNDM equals the Adams–Bashforth method where steps are even in sigma / alpha."""

import pytest
import torch
from oracles import MixtureOracle
from walks import end

from diffusion_framework.process.schedules import EDM, Sigmoid
from diffusion_framework.samplers import IPNDM, LMS
from diffusion_framework.samplers.grids import grid_of_sigmas


def error_by_steps(sampler, oracle, x, exact):
    grids = (
        grid_of_sigmas(oracle.schedule, [2 - 1.5 * i / n for i in range(n + 1)], clean=False)
        for n in (40, 80)
    )
    return [(end(sampler, oracle, x, grid) - exact).abs().max().item() for grid in grids]


@pytest.mark.parametrize("schedule", [Sigmoid(), EDM()], ids=repr)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_on_even_steps_it_is_the_exact_method(order, schedule):
    oracle = MixtureOracle(schedule=schedule)
    x = torch.randn(30, dtype=torch.float64)
    even = grid_of_sigmas(schedule, [5 - 0.25 * i for i in range(20)])
    torch.testing.assert_close(
        end(IPNDM(order), oracle, x, even), end(LMS(order), oracle, x, even), rtol=0, atol=1e-12
    )


def test_errors_on_even_steps_fall_at_least_with_the_square_of_their_number():
    # the first step is one of Euler, whose error of second order is that of the whole
    oracle = MixtureOracle(means=(-0.7, 0.6), stds=(0.4, 0.3))
    x = torch.randn(40, dtype=torch.float64)
    fine = grid_of_sigmas(oracle.schedule, [2 - 1.5 * i / 2_000 for i in range(2_001)], clean=False)
    exact = end(IPNDM(2), oracle, x, fine)
    for order in (2, 3, 4):
        coarse, finer = error_by_steps(IPNDM(order), oracle, x, exact)
        assert coarse > 3.5 * finer


@pytest.mark.parametrize("order", [0, 5])
def test_other_orders_are_refused(order):
    with pytest.raises(ValueError, match=f"order from 1 to 4, got {order}. Fix"):
        IPNDM(order)
