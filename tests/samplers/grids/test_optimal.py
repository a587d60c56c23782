import itertools
import math

import pytest
import torch
from oracles import MixtureOracle
from scipy.integrate import quad

from diffusion_framework import DPMSolver
from diffusion_framework.process.noise import generator_noise
from diffusion_framework.process.schedules import (
    EDM,
    Cosine,
    Flow,
    LinearBeta,
    ScaledLinearBeta,
    Sigmoid,
)
from diffusion_framework.samplers import trajectory
from diffusion_framework.samplers.grids import grid_of_log_snrs, optimal_log_snrs, uniform_log_snrs
from diffusion_framework.samplers.grids.optimal import _optimal, error_bound


def bound(values, order):
    return error_bound(torch.tensor(values, dtype=torch.float64), order).item()


def prediction_error(log_snr):
    """Returns sigma² / alpha, where alpha² + sigma² = 1."""
    return math.sqrt(1 + math.exp(-log_snr)) / (1 + math.exp(log_snr))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_bound_sums_absolute_weights_times_prediction_errors(order):
    values = [-4.0, -3.1, -1.0, 0.4, 0.9, 3.0]
    expected = 0.0
    for i in range(len(values) - 1):
        nodes = values[max(i - order + 1, 0) : i + 1]
        for node in nodes:

            def integrand(x, node=node, nodes=nodes):
                basis = math.prod((x - other) / (node - other) for other in nodes if other != node)
                return 0.5 * math.exp((x - values[-1]) / 2) * basis

            expected += abs(
                quad(integrand, values[i], values[i + 1], epsabs=1e-13)[0]
            ) * prediction_error(node)
    assert bound(values, order) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("schedule", [LinearBeta(), Sigmoid(), EDM(), Cosine()], ids=repr)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [3, 8, 20])
def test_no_small_change_of_a_level_lowers_the_bound(schedule, order, steps):
    *values, end = optimal_log_snrs(schedule, steps, order)
    *even, _ = uniform_log_snrs(schedule, steps)
    assert end == math.inf and len(values) == steps
    assert (values[0], values[-1]) == (even[0], even[-1])
    least = bound(values, order)
    assert least <= bound(even, order)
    min_length = 0.1 * (values[-1] - values[0]) / (steps - 1)
    for i in range(1, steps - 1):
        for change in (-1e-2, 1e-2):
            near = [value + change * (j == i) for j, value in enumerate(values)]
            if min(b - a for a, b in itertools.pairwise(near)) >= min_length:
                assert bound(near, order) > least * (1 - 1e-3)


def test_the_result_is_deterministic_and_the_same_in_inference_mode():
    _optimal.cache_clear()
    with torch.inference_mode():
        first = optimal_log_snrs(ScaledLinearBeta(), 9, 3)
    _optimal.cache_clear()
    torch.manual_seed(5)
    with torch.no_grad():
        assert optimal_log_snrs(ScaledLinearBeta(), 9, 3) == first


def test_one_or_two_steps_are_evenly_spaced():
    for steps in (1, 2):
        assert optimal_log_snrs(Cosine(), steps) == uniform_log_snrs(Cosine(), steps)


@pytest.mark.parametrize("schedule", [LinearBeta(), EDM(), ScaledLinearBeta()], ids=repr)
def test_optimal_spacing_is_more_accurate_than_even_log_snr(schedule):
    oracle = MixtureOracle(schedule=schedule)
    x = schedule.at(1.0).sigma * torch.randn(
        400, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def end(log_snrs, order):
        noise = generator_noise()
        return list(
            trajectory(DPMSolver(order), oracle, x, grid_of_log_snrs(schedule, log_snrs), noise)
        )[-1].x

    exact = end(uniform_log_snrs(schedule, 2000), 3)
    for steps in (8, 15):
        errors = [
            (end(log_snrs(schedule, steps), 2) - exact).abs().mean()
            for log_snrs in (optimal_log_snrs, uniform_log_snrs)
        ]
        assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimal_log_snrs(Cosine(), 0), "from 1 to 100000, got 0"),
        (lambda: optimal_log_snrs(Cosine(), 10, order=5), "1 to 4, got 5"),
        (lambda: optimal_log_snrs(Flow(), 10), "got -inf"),
        (lambda: optimal_log_snrs(Cosine(), 10, last_time=0.0), "got inf"),
        (lambda: optimal_log_snrs(Cosine(), 10, strength=math.nan), "strength=nan"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
