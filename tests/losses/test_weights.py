"""Tests of loss weights."""

import math

import pytest
import torch

from diffusion_framework import EDM, Cosine, Flow, MinSNR, Sigmoid
from diffusion_framework.losses import (
    P2,
    EDMWeight,
    Likelihood,
    SoftMinSNR,
    UniformOn,
    output_weight,
)
from diffusion_framework.process.level import Level
from diffusion_framework.process.objectives import X0, Eps, Preconditioned, Score, V, Velocity
from diffusion_framework.process.schedules import VE, Scaled


def levels(schedule=None):
    return (schedule or Cosine()).at(torch.linspace(0.02, 0.98, 49, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_equals_its_definition(gamma):
    at = levels()
    snr = at.alpha**2 / at.sigma**2
    clipped = snr.clamp(max=gamma)
    for objective, expected in (
        (X0(), clipped),
        (Eps(), clipped / snr),
        (V(), clipped / (snr + 1)),
    ):
        torch.testing.assert_close(output_weight(MinSNR(gamma), objective, at), expected)


@pytest.mark.parametrize("schedule", [Cosine(), VE(), Flow()], ids=repr)
def test_weights_equal_their_published_formulas(schedule):
    """Each weight has its paper's formula on the paper's target, in sigma of x / alpha."""
    at = levels(schedule)
    sigma = at.sigma / at.alpha
    snr = sigma**-2
    soft = 1 / (sigma**2 + 1 / 4.0)  # Crowson et al. 2024, on D
    torch.testing.assert_close(output_weight(SoftMinSNR(4.0), X0(), at), soft)
    torch.testing.assert_close(output_weight(P2(2.0, 0.7), Eps(), at), 1 / (2.0 + snr) ** 0.7)
    edm = (sigma**2 + 0.3**2) / (sigma * 0.3) ** 2
    torch.testing.assert_close(output_weight(EDMWeight(0.3), X0(), at), edm)
    torch.testing.assert_close(
        output_weight(EDMWeight(0.3), Preconditioned(0.3), at), torch.ones_like(sigma)
    )


@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow()], ids=repr)
def test_uniform_on_a_target_is_the_plain_error_of_that_target(schedule):
    at = levels(schedule)
    x, out, other = torch.randn(3, 49, 6, dtype=torch.float64)
    for target in (Eps(), X0(), V(), Score(), Velocity(), Preconditioned()):
        for objective in (Eps(), V(), Preconditioned()):
            one, two = (objective.prediction(value, x, at) for value in (out, other))
            error = target.target(one.x0, one.eps, at) - target.target(two.x0, two.eps, at)
            weight = output_weight(UniformOn(target), objective, at)
            torch.testing.assert_close(weight[:, None] * (out - other) ** 2, error**2)
        torch.testing.assert_close(
            output_weight(UniformOn(target), target, at), torch.ones_like(at.sigma)
        )


def test_a_bounded_uniform_weight_is_that_of_jit_and_of_min_snr():
    """JiT divides errors of x0 by a time of at least 0.05, with t = 1 for clean data."""
    at = levels(Flow())
    clean, x, one, other = 1 - at.t, *torch.randn(3, 49, dtype=torch.float64)
    velocity, wanted = ((each - x) / (1 - clean).clamp(min=0.05) for each in (one, other))
    weight = output_weight(UniformOn(Velocity(), 400.0), X0(), at)
    torch.testing.assert_close(weight * (one - other) ** 2, (velocity - wanted) ** 2)
    for schedule in (Cosine(), EDM(), Flow()):
        same = UniformOn(Eps(), 5.0), MinSNR(5.0)
        torch.testing.assert_close(*(output_weight(w, V(), levels(schedule)) for w in same))
    with pytest.raises(ValueError, match="UniformOn: Expected a finite largest above 0, got 0.0"):
        UniformOn(Eps(), 0.0)


@pytest.mark.parametrize("bias", [-3.0, 0.0, 1.0])
@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow()], ids=repr)
def test_soft_min_snr_is_the_sigmoid_weight_of_the_noise(schedule, bias):
    at = levels(schedule)
    weight = output_weight(SoftMinSNR(math.exp(bias)), Eps(), at)
    torch.testing.assert_close(weight, torch.sigmoid(bias - at.log_snr))


@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow()], ids=repr)
def test_likelihood_weighting_is_the_slope_of_the_snr(schedule):
    at, h = levels(schedule), 1e-6
    ahead, behind = schedule.at(at.t + h), schedule.at(at.t - h)
    slope = (torch.exp(ahead.log_snr) - torch.exp(behind.log_snr)) / (2 * h)
    torch.testing.assert_close(
        output_weight(Likelihood(schedule), X0(), at), -slope / 2, rtol=1e-5, atol=0
    )
    with torch.no_grad():
        assert not output_weight(Likelihood(schedule), Eps(), at).requires_grad


def test_weights_have_their_limits_at_both_ends():
    ends = Cosine(clip_min=1e-300).at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert output_weight(MinSNR(), X0(), ends).tolist() == pytest.approx([5.0, 0.0])
    assert output_weight(MinSNR(), Eps(), ends).tolist() == pytest.approx([0.0, 1.0])
    assert output_weight(MinSNR(), V(), ends).tolist() == pytest.approx([0.0, 0.0])
    ends = Flow().at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert output_weight(UniformOn(Velocity()), Velocity(), ends).tolist() == [1.0, 1.0]
    assert output_weight(SoftMinSNR(), Velocity(), ends).tolist() == pytest.approx([0.0, 0.0])
    assert output_weight(P2(), X0(), ends).tolist() == pytest.approx([1.0, 0.0])
    assert output_weight(EDMWeight(), Preconditioned(), ends).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("schedule", [Cosine(), Scaled(Cosine(), 0.5), Scaled(Sigmoid(), 0.1)])
def test_weighted_output_error_is_weighted_x0_error(schedule):
    """Also with `scale` below 1, where alpha² + sigma² is below 1."""
    x, out, other = torch.randn(3, 1, 6, dtype=torch.float64)
    for t in (0.1, 0.5, 0.9):
        at = schedule.at(torch.tensor([t], dtype=torch.float64))
        snr = (at.alpha**2 / at.sigma**2).item()
        for objective in (X0(), Eps(), V()):
            on_output = output_weight(MinSNR(), objective, at) * (out - other) ** 2
            on_x0 = (
                min(snr, 5.0)
                * (objective.prediction(out, x, at).x0 - objective.prediction(other, x, at).x0) ** 2
            )
            torch.testing.assert_close(on_output, on_x0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("make", [MinSNR, SoftMinSNR, P2, EDMWeight])
def test_bad_options(make, value):
    with pytest.raises(
        ValueError, match=rf"{make.__name__}: Expected a finite (gamma|k|sigma_data) above 0, got"
    ):
        make(value)
    with pytest.raises(ValueError, match="P2: Expected a finite gamma of at least 0, got -0.1"):
        P2(gamma=-0.1)
    with pytest.raises(ValueError, match="Expected sigma_data above 0"):
        Preconditioned(0.0)


def test_weights_receive_finite_levels():
    seen = []

    class Watching(MinSNR):
        def log_weight(self, at: Level) -> torch.Tensor:
            seen.append(at.log_snr)
            return super().log_weight(at)

    output_weight(Watching(), V(), Flow().at(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)))
    assert seen[0].isfinite().all()
