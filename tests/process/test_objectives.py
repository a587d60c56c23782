import math

import pytest
import torch
from toys import tiny_unet

from diffusion_framework import EDM, Flow, GaussianDiffusion, Sigmoid
from diffusion_framework.process.objectives import (
    X0,
    Eps,
    NegatedEps,
    Preconditioned,
    PreviousX,
    Score,
    V,
    Velocity,
)
from diffusion_framework.process.schedules import VE, LinearBeta, Scaled

OBJECTIVES = [Eps(), NegatedEps(), Score(), X0(), V(), Velocity(), Preconditioned(0.3), "previous"]
SCHEDULES = [Sigmoid(), Scaled(Sigmoid(), 0.3), VE(), EDM(), Flow(), LinearBeta()]


def on(schedule, objective):
    return PreviousX(schedule, 100) if objective == "previous" else objective


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize(
    "times", [0.01, 0.5, 0.98, torch.tensor([0.01, 0.3, 0.7, 0.98], dtype=torch.float64)], ids=str
)
def test_prediction_inverts_target(objective, schedule, times):
    objective = on(schedule, objective)
    x0, eps = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    at = schedule.at(times)
    level = at.expand_to(x0)
    x = level.alpha * x0 + level.sigma * eps
    prediction = objective.prediction(objective.target(x0, eps, at), x, at)
    torch.testing.assert_close(prediction.x0, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prediction.eps, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_prediction_recombines_to_x_for_any_output(objective, schedule):
    x, output = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    at = schedule.at(0.4)
    prediction = on(schedule, objective).prediction(output, x, at)
    torch.testing.assert_close(at.alpha * prediction.x0 + at.sigma * prediction.eps, x)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_gain_is_the_slope_of_x0_in_the_output(objective, schedule):
    objective = on(schedule, objective)
    x, output = torch.randn(2, 1, 8, dtype=torch.float64)
    at = schedule.at(0.6)
    change = objective.prediction(output + 1, x, at).x0 - objective.prediction(output, x, at).x0
    torch.testing.assert_close(
        change.abs(), torch.full_like(x, objective.gain(at)), rtol=1e-6, atol=1e-9
    )
    tensor_gain = objective.gain(schedule.at(torch.tensor([0.6], dtype=torch.float64)))
    assert torch.as_tensor(tensor_gain).item() == pytest.approx(objective.gain(at))


@pytest.mark.parametrize("t", [0.02, 0.5, 0.97])
def test_unit_weights_as_functions_of_snr(t):
    """A unit weight on the output is 1 / gain² on x0.

    This gives 1, snr and snr + 1 for x0, eps and v. For EDM it gives snr + 1 / sigma_data² on any
    schedule.
    """
    at = Sigmoid().at(t)
    snr = at.alpha**2 / at.sigma**2
    assert X0().gain(at) ** -2 == pytest.approx(1)
    assert Eps().gain(at) ** -2 == pytest.approx(snr)
    assert V().gain(at) ** -2 == pytest.approx(snr + 1)
    for schedule in SCHEDULES:
        at = schedule.at(t)
        assert Preconditioned(0.3).gain(at) ** -2 == pytest.approx(math.exp(at.log_snr) + 1 / 0.09)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_edm_preconditioning_matches_the_paper(schedule):
    """D = c_skip x + c_out F(c_in x, c_noise), from Karras et al. 2022, table 1, where alpha = 1.

    On other schedules the same holds with x / alpha and sigma / alpha.
    """

    def network(x, time, self_cond=None):
        return torch.sin(3 * x + time.reshape(-1, 1, 1, 1).to(x))

    class Network(torch.nn.Module):
        channels, image_size = 1, 4

        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, time):
            return network(x, time)

    parts = {"objective": "edm", "time_input": "c_noise", "input_scaling": "unit_variance"}
    diffusion = GaussianDiffusion(Network(), noise_schedule=schedule, **parts)
    sigma_data, x = 0.5, torch.randn(3, 1, 4, 4, dtype=torch.float64)
    for t in (0.05, 0.4, 0.99):
        at = schedule.at(t)
        sigma, scaled = at.sigma / at.alpha, x / at.alpha
        root = math.sqrt(sigma**2 + sigma_data**2)
        c_skip, c_out = sigma_data**2 / root**2, sigma * sigma_data / root
        c_in, c_noise = 1 / root, math.log(sigma) / 4
        expected = c_skip * scaled + c_out * network(c_in * scaled, torch.tensor([c_noise]))
        torch.testing.assert_close(diffusion.denoiser()(x, at).x0, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("i", [0, 1, 50, 99])
def test_previous_x_is_the_mean_given_by_bayes_rule(schedule, i):
    """E[x' | x, x0] follows from the two Gaussians x' | x0 and x | x'.

    Ho et al. 2020, eq. 7, is the case of variance-preserving schedules.
    """
    x0, eps = torch.randn(2, 1, 6, dtype=torch.float64)
    now, to = schedule.at((i + 1) / 100), schedule.at(i / 100)
    x = now.alpha * x0 + now.sigma * eps
    ratio = now.alpha / to.alpha
    forward = now.sigma**2 - ratio**2 * to.sigma**2
    expected = (ratio * to.sigma**2 * x + to.alpha * forward * x0) / now.sigma**2
    for at in (now, schedule.at(torch.tensor([now.t], dtype=torch.float64))):
        torch.testing.assert_close(
            PreviousX(schedule, 100).target(x0, eps, at), expected, rtol=1e-7, atol=1e-9
        )


@pytest.mark.parametrize("objective", ["eps", "score"])
@pytest.mark.parametrize("schedule", [Flow(), LinearBeta(zero_terminal_snr=True)], ids=repr)
def test_objectives_that_do_not_determine_the_data_at_zero_snr_are_refused(objective, schedule):
    with pytest.raises(
        ValueError, match=r"alpha = 0 at t = 1.*use the objective v, x0 or velocity"
    ):
        GaussianDiffusion(tiny_unet(), noise_schedule=schedule, objective=objective)
    for accepted in ("v", "x0", "velocity", "edm", "previous_x"):
        GaussianDiffusion(tiny_unet(), noise_schedule=schedule, objective=accepted)


@pytest.mark.parametrize("schedule", [Sigmoid(), Flow(), VE(), EDM()], ids=repr)
def test_cleaner_returns_the_next_level_of_the_grid(schedule):
    diffusion = GaussianDiffusion(tiny_unet(), noise_schedule=schedule, timesteps=7)
    grid = diffusion.grid()
    assert len(grid) == schedule.step_count(7)
    assert [schedule.cleaner(now, 7).log_snr for now, _ in grid] == pytest.approx(
        [to.log_snr for _, to in grid]
    )
    batch = schedule.at(torch.tensor([now.t for now, _ in grid], dtype=torch.float64))
    cleaner = schedule.cleaner(batch, 7)
    assert cleaner.sigma.tolist() == pytest.approx(
        [to.sigma for _, to in grid], rel=1e-12, abs=1e-15
    )
    assert schedule.cleaner(grid[-1][0], 7).is_end and cleaner.sigma[-1] == 0
