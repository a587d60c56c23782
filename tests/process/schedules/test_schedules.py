"""Laws of every schedule, and the definitions of all but the gamma schedules to 60 digits."""

import itertools
import math

import mpmath
import pytest
import torch
from toys import Plain

from diffusion_framework import GaussianDiffusion
from diffusion_framework.parts.table import TABLE
from diffusion_framework.process.schedules import (
    EDM,
    VE,
    Betas,
    Cosine,
    Flow,
    LinearBeta,
    Scaled,
    ScaledLinearBeta,
    Sigmoid,
    SquaredCosBeta,
    schedule_named,
)

mpmath.mp.dps = 60
TIMES = [1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.8, 0.999, 1 - 1e-6]


def sigma_ve(s, t):
    return mpmath.mpf(1), s.sigma_min * (mpmath.mpf(s.sigma_max) / s.sigma_min) ** t


def sigma_edm(s, t):
    first, last = (mpmath.mpf(v) ** (1 / mpmath.mpf(s.rho)) for v in (s.sigma_min, s.sigma_max))
    return mpmath.mpf(1), (first + t * (last - first)) ** s.rho


def sigma_flow(s, t):
    shifted = s.shift * t / (1 + (s.shift - mpmath.mpf(1)) * t)
    return 1 - shifted, shifted


CLOSED_FORMS = [
    (VE(), sigma_ve),
    (VE(sigma_min=0.1, sigma_max=0.2), sigma_ve),
    (EDM(), sigma_edm),
    (EDM(rho=1.0), sigma_edm),
    (EDM(rho=300.0), sigma_edm),
    (Flow(), sigma_flow),
    (Flow(shift=3.0), sigma_flow),
    (Flow(shift=0.2), sigma_flow),
]
BETAS = [
    LinearBeta(),
    ScaledLinearBeta(),
    LinearBeta(steps=2000),
    LinearBeta(steps=9),
    ScaledLinearBeta(steps=250),
    SquaredCosBeta(),
    LinearBeta(zero_terminal_snr=True),
    ScaledLinearBeta(zero_terminal_snr=True),
    SquaredCosBeta(steps=50, zero_terminal_snr=True),
    LinearBeta(beta_start=1e-12, beta_end=0.9, steps=60),
    Betas(),
    Betas((0.3,)),
    Betas((1e-9, 0.5, 1e-2, 0.99, 0.2)),
    Betas((0.1, 0.5, 1.0)),
]
ALL = [schedule for schedule, _ in CLOSED_FORMS] + BETAS + [Scaled(Flow(), 0.5), Scaled(EDM(), 0.3)]


@pytest.mark.parametrize(
    ("schedule", "exact"), CLOSED_FORMS, ids=[repr(s) for s, _ in CLOSED_FORMS]
)
@pytest.mark.parametrize("t", TIMES)
def test_levels_equal_the_definition_in_60_digits(schedule, exact, t):
    alpha, sigma = exact(schedule, mpmath.mpf(t))
    level = schedule.at(t)
    # Near the noisy end, rounding t by one ulp changes the level.
    tolerance = 1e-13 + 1e-15 / (1 - t)
    assert abs(level.alpha / alpha - 1) < tolerance
    assert abs(level.sigma / sigma - 1) < tolerance
    assert abs(level.log_snr - 2 * mpmath.log(alpha / sigma)) < 2 * tolerance


def evenly_in_root(s, power):
    ends = ("1e-4", "0.02") if power == 1 else ("0.00085", "0.012")  # published for 1000 steps
    given = (s.beta_start, s.beta_end)
    first, last = (
        (
            min(mpmath.mpf(published) * 1000 / s.steps, mpmath.mpf("0.999"))
            if beta is None
            else mpmath.mpf(beta)
        )
        ** (mpmath.mpf(1) / power)
        for beta, published in zip(given, ends, strict=True)
    )
    return [(first + (last - first) * i / (s.steps - 1)) ** power for i in range(s.steps)]


def squared_cos(s):
    offset = mpmath.mpf("0.008")
    angles = [
        (mpmath.mpf(i) / s.steps + offset) / (1 + offset) * mpmath.pi / 2
        for i in range(s.steps + 1)
    ]
    alphas_squared = [mpmath.cos(angle) ** 2 for angle in angles]
    ratios = [b / a for a, b in itertools.pairwise(alphas_squared)]
    return [min(1 - ratio, mpmath.mpf(s.max_beta)) for ratio in ratios]


def exact_betas(s):
    by_class = {
        Betas: lambda: [mpmath.mpf(beta) for beta in s.betas],
        LinearBeta: lambda: evenly_in_root(s, 1),
        ScaledLinearBeta: lambda: evenly_in_root(s, 2),
        SquaredCosBeta: lambda: squared_cos(s),
    }
    return by_class[type(s)]()


def exact_alphas(s):
    """Returns alpha after each step by the published algorithm, in 60 digits."""
    alphas, product = [], mpmath.mpf(1)
    for beta in exact_betas(s):
        product *= 1 - beta
        alphas.append(mpmath.sqrt(product))
    if s.zero_terminal_snr:
        first, last = alphas[0], alphas[-1]
        alphas = [(alpha - last) * first / (first - last) for alpha in alphas]
    return alphas


@pytest.mark.parametrize("schedule", BETAS, ids=repr)
def test_alpha_squared_at_every_training_step_is_the_product_of_one_minus_beta(schedule):
    exact = exact_alphas(schedule)
    count = len(exact)
    for i, alpha in enumerate(exact):
        level = schedule.at((i + 1) / count)
        sigma = mpmath.sqrt(1 - alpha**2)
        # Near the noisy end, one ulp of t changes alpha by 1e-16.
        assert (
            abs(level.alpha - alpha) < 4e-14 * alpha + 1e-15 * (i < count - 1)
            or level.alpha == alpha == 0
        )
        assert abs(level.sigma / sigma - 1) < 1e-13
        if alpha > 1e-6:
            assert abs(level.log_snr - 2 * mpmath.log(alpha / sigma)) < 1e-12
        round_trip = schedule.at_log_snr(level.log_snr)
        assert round_trip.t == pytest.approx((i + 1) / count, abs=1e-13)


@pytest.mark.parametrize("schedule", BETAS, ids=repr)
def test_beta_schedules_are_clean_at_0_and_lose_all_signal_at_1_only_if_asked(schedule):
    clean, noisy = schedule.at(0.0), schedule.at(1.0)
    assert (clean.alpha, clean.sigma, clean.log_snr) == (1.0, 0.0, math.inf)
    no_signal = schedule.zero_terminal_snr or exact_betas(schedule)[-1] == 1
    assert (noisy.alpha == 0) == (noisy.log_snr == -math.inf) == no_signal


@pytest.mark.parametrize("schedule", BETAS, ids=repr)
def test_beta_schedules_have_a_continuous_slope(schedule):
    nodes = torch.arange(1, len(exact_alphas(schedule)), dtype=torch.float64) / len(
        exact_alphas(schedule)
    )
    slopes = []
    for side in (0.0, 1.0):
        t = nodes + (side - nodes) * 1e-14
        t.requires_grad_()
        slopes.append(*torch.autograd.grad(schedule.log_snr(t).sum(), t))
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("schedule", BETAS, ids=repr)
def test_sigma_squared_starts_in_proportion_to_time(schedule):
    first, second = schedule.at(1e-12), schedule.at(2e-12)
    assert first.sigma > 0
    assert second.sigma**2 / first.sigma**2 == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_time_is_the_inverse_of_log_snr(schedule):
    times = torch.cat(
        [torch.tensor(TIMES, dtype=torch.float64), torch.linspace(0, 1, 3001, dtype=torch.float64)]
    )
    levels = schedule.at(times)
    round_trip = schedule.at_log_snr(levels.log_snr)
    # Where log-SNR is nearly constant in time, its rounding limits the precision of t.
    torch.testing.assert_close(round_trip.t, times, rtol=0, atol=2e-12)
    torch.testing.assert_close(round_trip.sigma, levels.sigma, rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [s for s in ALL if s.at(0.0).is_end], ids=repr)
def test_the_inverse_has_full_relative_precision_at_small_times(schedule):
    for t in (1e-300, 1e-30, 1e-12, 1e-6):
        assert schedule.at_log_snr(schedule.at(t).log_snr).t == pytest.approx(t, rel=1e-11)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_log_snr_falls(schedule):
    log_snr = schedule.at(torch.linspace(0, 1, 3001, dtype=torch.float64)).log_snr
    assert (log_snr[1:] < log_snr[:-1]).all()


@pytest.mark.parametrize(
    ("schedules", "law"),
    [
        (BETAS, lambda at: at.alpha**2 + at.sigma**2),
        ([VE(), EDM()], lambda at: at.alpha),
        ([Flow(), Flow(3.0)], lambda at: at.alpha + at.sigma),
    ],
    ids=["preserving", "exploding", "interpolating"],
)
def test_alpha_and_sigma_obey_the_law_of_their_kind_of_schedule(schedules, law):
    for schedule in schedules:
        total = law(schedule.at(torch.linspace(0, 1, 1001, dtype=torch.float64)))
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "schedule", [*ALL, Cosine(), Sigmoid(), Sigmoid(start=0.0, end=3.0, tau=0.25)], ids=repr
)
def test_clean_is_a_level_of_floats_without_noise(schedule):
    clean = schedule.clean
    assert (clean.t, clean.sigma, clean.log_snr) == (0.0, 0.0, math.inf) and clean.is_end
    assert clean.alpha == schedule.at(0.0).alpha
    assert all(isinstance(value, float) for value in vars(clean).values())


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_log_snr_beyond_the_curve_gives_the_time_of_its_nearest_end(schedule):
    low, high = schedule.at(1.0).log_snr, schedule.at(0.0).log_snr
    assert schedule.at_log_snr(low - 1).t == pytest.approx(1, abs=1e-12)
    assert schedule.at_log_snr(high + 1).t == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_tensors_keep_their_shape_and_agree_with_floats(schedule):
    times = torch.rand(6, 5, dtype=torch.float64)
    levels = schedule.at(times)
    assert levels.sigma.shape == schedule.at_log_snr(levels.log_snr).t.shape == times.shape
    level = schedule.at(times[3, 2].item())
    assert level.log_snr == levels.log_snr[3, 2].item()
    assert (
        schedule.at_log_snr(level.log_snr).t == schedule.at_log_snr(levels.log_snr).t[3, 2].item()
    )


def test_a_spline_cached_in_inference_mode_can_be_differentiated():
    schedule = LinearBeta(steps=41)
    with torch.inference_mode():
        schedule.at(0.5)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.log_snr(t).sum(), t)
    h = 1e-6
    by_difference = (schedule.log_snr(t + h) - schedule.log_snr(t - h)) / (2 * h)
    torch.testing.assert_close(slope, by_difference.detach(), rtol=1e-6, atol=0)


def test_betas_accept_any_sequence_of_numbers():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert Betas(betas) == Betas(betas.tolist()) == Betas(tuple(betas.tolist()))
    for t in TIMES:
        assert Betas(betas).at(t).log_snr == pytest.approx(LinearBeta().at(t).log_snr, rel=1e-12)


@pytest.mark.parametrize("name", ["linear_beta", "scaled_linear_beta", "squared_cos_beta"])
def test_a_named_schedule_divides_nearly_the_same_curve_into_the_steps_of_the_model(name):
    for steps in (500, 2000):
        schedule = GaussianDiffusion(Plain(), noise_schedule=name, timesteps=steps).schedule
        assert schedule == schedule_named(name, {"steps": steps}) and schedule.steps == steps
        for t in (0.2, 0.5, 0.9):
            exact = schedule_named(name, {"steps": 20_000}).at(t).log_snr
            assert schedule.at(t).log_snr == pytest.approx(exact, abs=60 / steps)
    betas = schedule_named("linear_beta", {"beta_end": 0.5}, steps=4).step_betas()
    assert (len(betas), betas[3]) == (4, pytest.approx(0.5))
    betas = GaussianDiffusion(Plain(), noise_schedule=name, timesteps=4).schedule.step_betas()
    assert len(betas) == 4 and betas[-1] == pytest.approx(0.999)


@pytest.mark.parametrize(
    "name", [name for name in TABLE["NoiseSchedule"] if name not in ("betas", "scaled")]
)
def test_every_name_builds_a_schedule(name):
    assert schedule_named(name, {}).at(0.5).sigma > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Betas(()),
        lambda: Betas((0.1, 1.0, 0.1)),
        lambda: Betas((0.1, 1.5)),
        lambda: Betas((0.1, math.nan)),
        lambda: Betas((0.0, 0.1)),
        lambda: Betas((0.1,), zero_terminal_snr=True),
        lambda: Betas((0.1, 1e-20)),
        lambda: Betas((0.999,) * 1000),
        lambda: LinearBeta(beta_end=2.0),
        lambda: LinearBeta(steps=0),
        lambda: ScaledLinearBeta(beta_start=-1.0),
        lambda: SquaredCosBeta(max_beta=1.0),
        lambda: VE(sigma_min=0.0),
        lambda: VE(sigma_max=math.inf),
        lambda: VE(sigma_min=2.0, sigma_max=1.0),
        lambda: EDM(rho=0.0),
        lambda: EDM(sigma_min=math.nan),
        lambda: Flow(shift=0.0),
        lambda: Flow().at(1.5),
    ],
)
def test_options_and_times_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()
