import pytest
import torch
from oracles import MixtureOracle
from test_orders import even_grid, exact_flow

from diffusion_framework import Adaptive, Level, Prediction, Sigmoid, trajectory
from diffusion_framework.noise import generator_noise


class Counting:
    def __init__(self, oracle):
        self.oracle, self.schedule, self.calls = oracle, oracle.schedule, 0

    def __call__(self, x, at):
        self.calls += 1
        if not isinstance(at.sigma, torch.Tensor):
            return self.oracle(x, at)
        levels = zip(at.t.tolist(), at.alpha.tolist(), at.sigma.tolist(), at.log_snr.tolist(), strict=True)
        rows = [self.oracle(row, Level(*level)) for row, level in zip(x, levels, strict=True)]
        return Prediction(torch.stack([row.x0 for row in rows]), torch.stack([row.eps for row in rows]))


def run(sampler, x, first=-5.0, last=6.0):
    oracle = Counting(MixtureOracle(stds=(0.4, 0.3)))
    grid = even_grid(oracle.schedule, first, last, 1)
    end = list(trajectory(sampler, oracle, x, grid, generator_noise()))[-1].x
    return end, oracle.calls, exact_flow(oracle.oracle, x.flatten(), grid[0][0], grid[-1][1]).reshape(x.shape)


@pytest.mark.parametrize("order", [2, 3])
def test_the_error_follows_the_tolerance(order):
    x = torch.randn(20, 1, dtype=torch.float64)
    errors, calls = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        end, count, exact = run(Adaptive(order, rtol=tolerance, atol=tolerance), x)
        errors.append((end - exact).abs().max().item())
        calls.append(count)
        assert errors[-1] < 20 * tolerance
    assert errors[0] > errors[1] > errors[2]
    assert calls[0] < calls[1] < calls[2]


def test_the_higher_order_needs_fewer_calls_for_a_small_error():
    x = torch.randn(20, 1, dtype=torch.float64)
    _, second, _ = run(Adaptive(2, rtol=1e-6, atol=1e-6), x)
    _, third, _ = run(Adaptive(3, rtol=1e-6, atol=1e-6), x)
    assert third < second / 2


def test_a_sample_does_not_depend_on_its_batch_mates():
    x = torch.randn(6, 4, dtype=torch.float64)
    together, _, _ = run(Adaptive(), x)
    alone = torch.cat([run(Adaptive(), row[None])[0] for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_it_steps_to_the_clean_end_and_gives_up_when_told():
    oracle = Counting(MixtureOracle())
    grid = [(Sigmoid().at(0.99), Sigmoid().at(0.001)), (Sigmoid().at(0.001), Sigmoid().at(0.0))]
    x = torch.randn(50, 1, dtype=torch.float64)
    end = list(trajectory(Adaptive(), oracle, x, grid, generator_noise()))[-1].x
    assert end.abs().max() < 2
    with pytest.raises(ValueError, match="no end after max_calls=6 network calls"):
        list(trajectory(Adaptive(max_calls=6), oracle, x, grid, generator_noise()))


@pytest.mark.parametrize("make", [lambda: Adaptive(order=1), lambda: Adaptive(rtol=0.0), lambda: Adaptive(first=-1.0)])
def test_bad_options(make):
    with pytest.raises(ValueError, match="got"):
        make()
