import math

import pytest
import torch
from toys import Plain

from diffusion_framework import EDM, Flow, GaussianDiffusion, Sigmoid
from diffusion_framework.denoisers.preconditioning import (
    CNoise,
    LogSNRTime,
    MeasuredVariance,
    SigmaTime,
    StepTime,
    UnitTime,
    UnitVariance,
)
from diffusion_framework.process.schedules import VE


def seen(**options):
    """Returns the inputs (x, time) of a network in training and in sampling from t = 1."""
    diffusion = GaussianDiffusion(Plain(), **options)
    diffusion(torch.rand(64, 1, 4, 4))
    diffusion.sample(3, steps=4, spacing="time", seed=0, show_progress=False)
    return diffusion.model.seen


@pytest.mark.parametrize(
    ("time_input", "expected"),
    [
        (UnitTime(), lambda t: t),
        (StepTime(4), lambda t: 4 * t - 1),
        (StepTime(4, rescaled=True), lambda t: 250 * (4 * t - 1)),
        (LogSNRTime(), lambda t: Sigmoid().at(t).log_snr),
        (SigmaTime(), lambda t: Sigmoid().at(t).sigma / Sigmoid().at(t).alpha),
        (CNoise(), lambda t: math.log(Sigmoid().at(t).sigma / Sigmoid().at(t).alpha) / 4),
    ],
)
def test_the_network_is_told_the_level_while_sampling_and_training(time_input, expected):
    training, *sampling = seen(time_input=time_input)
    assert [time[0].item() for _, time in sampling] == pytest.approx(
        [expected(t) for t in (1, 0.75, 0.5, 0.25)]
    )
    for _, time in (training, *sampling):
        assert time.dtype == torch.float32
    times = sorted(training[1].tolist())
    low, high = sorted((expected(1e-9), expected(1.0)))
    assert low <= times[0] and times[-1] <= high and len(set(times)) == 64


@pytest.mark.parametrize("time_input", [LogSNRTime(), SigmaTime(), CNoise()], ids=repr)
def test_times_are_finite_at_both_ends(time_input):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert time_input.time(Flow().at(ends)).tolist() == [
        time_input.time(Flow().at(t)) for t in (0.0, 1.0)
    ]
    assert time_input.time(Flow().at(ends)).isfinite().all()


def test_the_sigma_of_an_exploding_schedule_is_its_time_input():
    for schedule in (VE(), EDM()):
        at = schedule.at(torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64))
        torch.testing.assert_close(SigmaTime().time(at), at.sigma)
    training, first, *_ = seen(noise_schedule="ve", time_input="sigma")
    assert first[1].tolist() == pytest.approx([50.0] * 3, rel=1e-6)
    assert training[1].min() > 0.01 and training[1].max() < 50


def test_measured_variance_is_the_mean_square_about_the_mean_of_each_sample():
    x = torch.randn(3, 2, 3, dtype=torch.float64) * torch.tensor([0.1, 1.0, 9.0])[:, None, None]
    scaled = MeasuredVariance().scaled(x, Sigmoid().at(0.5))
    for one, other in zip(x, scaled, strict=True):
        variance = ((one - one.mean()) ** 2).sum() / one.numel()
        torch.testing.assert_close(other, one / math.sqrt(variance))
    constant = torch.full((2, 1, 2, 2), 0.3)
    seen = MeasuredVariance().scaled(constant, Sigmoid().at(0.5))
    torch.testing.assert_close(seen, constant / 1e-5)  # the least divisor of the original


@pytest.mark.parametrize("schedule", [Sigmoid(), EDM(), Flow()], ids=repr)
def test_unit_variance_is_that(schedule):
    x0, eps = 0.3 * torch.randn(100_000, 1), torch.randn(100_000, 1)
    for t in (0.01, 0.5, 1.0):
        at = schedule.at(t)
        scaled = UnitVariance(0.3).scaled(at.alpha * x0 + at.sigma * eps, at)
        assert scaled.std().item() == pytest.approx(1, abs=0.01)
    batch = schedule.at(torch.tensor([0.01, 1.0], dtype=torch.float64))
    one_by_one = torch.cat(
        [UnitVariance().scaled(x0[i : i + 1], schedule.at(t)) for i, t in enumerate((0.01, 1.0))]
    )
    torch.testing.assert_close(UnitVariance().scaled(x0[:2], batch), one_by_one)


def test_the_input_is_scaled_and_the_output_read_against_the_noised_image():
    training, first, *_ = seen(
        noise_schedule="ve", objective="eps", input_scaling=UnitVariance(0.5)
    )
    assert 0.5 < training[0].std() < 2 and 0.5 < first[0].std() < 2
    diffusion = GaussianDiffusion(
        Plain(), noise_schedule="ve", objective="eps", input_scaling="unit_variance"
    )
    x, at = 50 * torch.randn(2, 1, 4, 4), diffusion.schedule.at(1.0)
    prediction = diffusion.denoiser()(x, at)
    torch.testing.assert_close(prediction.x0 + at.sigma * prediction.eps, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepTime(0), "from 1 to 100000, got 0"),
        (lambda: UnitVariance(0.0), "above 0, got 0"),
        (lambda: UnitVariance(math.inf), "above 0, got inf"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
