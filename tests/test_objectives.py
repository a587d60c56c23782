import pytest
import torch

from diffusion_framework import X0, Eps, Sigmoid, V
from diffusion_framework.schedules import Scaled

OBJECTIVES = [Eps(), X0(), V()]
SCHEDULES = [Sigmoid(), Scaled(Sigmoid(), 0.3)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("times", [0.01, 0.5, 0.98, torch.tensor([0.01, 0.3, 0.7, 0.98], dtype=torch.float64)], ids=str)
def test_prediction_inverts_target(objective, schedule, times):
    x0, eps = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    at = schedule.at(times)
    level = at.like(x0)
    x = level.alpha * x0 + level.sigma * eps
    prediction = objective.prediction(objective.target(x0, eps, at), x, at)
    torch.testing.assert_close(prediction.x0, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prediction.eps, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_any_output_gives_a_prediction_that_makes_up_x(objective, schedule):
    x, output = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    at = schedule.at(0.4)
    prediction = objective.prediction(output, x, at)
    torch.testing.assert_close(at.alpha * prediction.x0 + at.sigma * prediction.eps, x)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_gain_is_the_slope_of_x0_in_the_output(objective):
    x, output = torch.randn(2, 1, 8, dtype=torch.float64)
    at = Sigmoid().at(0.6)
    change = objective.prediction(output + 1, x, at).x0 - objective.prediction(output, x, at).x0
    torch.testing.assert_close(change.abs(), torch.full_like(x, abs(objective.gain(at))))


@pytest.mark.parametrize("t", [0.02, 0.5, 0.97])
def test_unit_weights_as_functions_of_snr(t):
    """A unit weight on the output is 1 / gain² on x0: 1, snr and snr + 1."""
    at = Sigmoid().at(t)
    snr = at.alpha**2 / at.sigma**2
    assert X0().gain(at) ** -2 == pytest.approx(1)
    assert Eps().gain(at) ** -2 == pytest.approx(snr)
    assert V().gain(at) ** -2 == pytest.approx(snr + 1)
