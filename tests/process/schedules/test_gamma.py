import math

import mpmath
import pytest
import torch

from diffusion_framework import Cosine, Sigmoid
from diffusion_framework.process.schedules import Linear, Scaled

mpmath.mp.dps = 60
TIMES = [1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.8, 0.999, 1 - 1e-6]


def gamma_linear(s, t):
    return 1 - t


def gamma_cosine(s, t):
    def v(u):
        return mpmath.cos(u * mpmath.pi / 2) ** (2 * s.tau)

    end = v(s.end) if s.end < 1 else mpmath.mpf(0)
    return (v(t * (s.end - s.start) + s.start) - end) / (v(mpmath.mpf(s.start)) - end)


def gamma_sigmoid(s, t):
    def v(u):
        return 1 / (1 + mpmath.exp(-u / s.tau))

    start, end, tau = mpmath.mpf(s.start), mpmath.mpf(s.end), mpmath.mpf(s.tau)
    s = type("S", (), {"tau": tau})
    return (v(end) - v(t * (end - start) + start)) / (v(end) - v(start))


SCHEDULES = [
    (Linear(clip_min=1e-30), gamma_linear),
    (Cosine(clip_min=1e-30), gamma_cosine),
    (Cosine(start=0.125, end=1.0, tau=2.0, clip_min=1e-30), gamma_cosine),
    (Cosine(start=0.25, end=0.875, tau=1.5, clip_min=1e-30), gamma_cosine),
    (Sigmoid(clip_min=1e-30), gamma_sigmoid),
    (Sigmoid(start=0.0, end=3.0, tau=0.25, clip_min=1e-30), gamma_sigmoid),
    (Sigmoid(start=-2.0, end=5.0, tau=1.5, clip_min=1e-30), gamma_sigmoid),
]
ids = [repr(s) for s, _ in SCHEDULES]


@pytest.mark.parametrize(("schedule", "gamma"), SCHEDULES, ids=ids)
@pytest.mark.parametrize("t", TIMES)
def test_levels_equal_the_definition_in_60_digits(schedule, gamma, t):
    exact = gamma(schedule, mpmath.mpf(t))
    level = schedule.at(t)
    # Near the noisy end, rounding t by one ulp changes the level.
    tolerance = 1e-13 + 1e-15 / (1 - t)
    assert abs(level.alpha / mpmath.sqrt(exact) - 1) < tolerance
    assert abs(level.sigma / mpmath.sqrt(1 - exact) - 1) < 1e-12
    log_snr = mpmath.log(exact / (1 - exact))
    assert abs(level.log_snr - log_snr) < 2 * tolerance + 1e-13 * abs(level.log_snr)


@pytest.mark.parametrize(("schedule", "gamma"), SCHEDULES, ids=ids)
def test_time_0_is_clean_and_time_1_has_gamma_clip_min(schedule, gamma):
    clean, noisy = schedule.at(0.0), schedule.at(1.0)
    assert (clean.alpha, clean.sigma, clean.log_snr) == (1.0, 0.0, math.inf)
    assert clean.is_end and not noisy.is_end
    assert noisy.alpha**2 == pytest.approx(schedule.clip_min, rel=1e-9)
    assert noisy.sigma == 1.0


@pytest.mark.parametrize(("schedule", "gamma"), SCHEDULES, ids=ids)
def test_time_is_the_inverse_of_log_snr(schedule, gamma):
    for t in TIMES:
        assert schedule.at_log_snr(schedule.at(t).log_snr).t == pytest.approx(
            t, rel=1e-9, abs=1e-15
        )
    for log_snr in (-20.0, -3.0, 0.0, 0.5, 7.0, 30.0):
        round_trip = schedule.at(schedule.at_log_snr(log_snr).t).log_snr
        # Near t = 1 the precision of log-SNR is ulp(1) times the slope of the curve.
        assert round_trip == pytest.approx(log_snr, rel=1e-6)
    assert schedule.at_log_snr(math.inf).t == 0.0


@pytest.mark.parametrize(("schedule", "gamma"), SCHEDULES, ids=ids)
def test_log_snr_falls_and_the_split_preserves_variance(schedule, gamma):
    levels = schedule.at(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert (levels.log_snr.diff() < 0).all()
    assert torch.allclose(
        levels.alpha**2 + levels.sigma**2, torch.ones(1001, dtype=torch.float64), atol=1e-15
    )


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_cosine_reaches_its_noisy_end_from_every_start(tau):
    """Rounding must not take the cosine below its last value, where the logarithm is NaN."""
    for i in range(100):
        schedule = Cosine(start=i / 100, tau=tau)
        assert schedule.at(1.0).log_snr == pytest.approx(math.log(1e-9), rel=1e-6)
        near = schedule.at(torch.tensor([1 - 1e-7, 1.0], dtype=torch.float32))
        assert torch.isfinite(near.log_snr).all()


def test_a_float_and_a_tensor_give_the_same_level():
    times = torch.rand(50, dtype=torch.float64)
    levels = Sigmoid().at(times)
    for i, t in enumerate(times.tolist()):
        level = Sigmoid().at(t)
        assert (level.t, level.alpha, level.sigma, level.log_snr) == tuple(
            value[i].item() for value in (levels.t, levels.alpha, levels.sigma, levels.log_snr)
        )


def test_scaled_moves_alpha_and_keeps_sigma():
    cosine = Cosine(clip_min=1e-30)
    for t in TIMES:
        plain, scaled = cosine.at(t), Scaled(cosine, 0.5).at(t)
        assert scaled.sigma == pytest.approx(plain.sigma, rel=1e-14)
        assert scaled.alpha == pytest.approx(plain.alpha / 2, rel=1e-14)
        assert scaled.log_snr == pytest.approx(
            math.log(scaled.alpha**2 / scaled.sigma**2), abs=1e-9
        )
        assert Scaled(cosine, 0.5).at_log_snr(scaled.log_snr).t == pytest.approx(t, rel=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(clip_min=0.0),
        lambda: Sigmoid(start=3.0, end=-3.0),
        lambda: Sigmoid(tau=0.0),
        lambda: Cosine(end=1.5),
        lambda: Cosine(start=0.5, end=0.5),
        lambda: Sigmoid().at(1.5),
        lambda: Scaled(Linear(), 0.0),
    ],
)
def test_options_and_times_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()
