"""Averages with power-function profiles, and combinations of them, against exact answers."""

import numpy as np
import pytest
from scipy.integrate import quad

from diffusion_framework.averaging import Averages, PowerProfile, inner_products

WIDTHS = [0.01, 0.05, 0.1, 0.2, 0.28]


def profile(gamma, end):
    return lambda step: (gamma + 1) * step**gamma / end ** (gamma + 1) * (step <= end)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_width_is_the_standard_deviation_of_the_profile(width):
    gamma = PowerProfile(width).gamma
    assert width**2 == pytest.approx((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)), rel=1e-9)
    density = profile(gamma, 1.0)
    mass, mean, square = (quad(lambda s, k=k: s**k * density(s), 0, 1)[0] for k in range(3))
    assert mass == pytest.approx(1)
    assert np.sqrt(square - mean**2) == pytest.approx(width, rel=1e-6)


def test_the_exponents_are_those_of_the_paper():
    """Karras et al. 2024 give 16.97 for .05 and 6.94 for .1."""
    assert [round(PowerProfile(w).gamma, 2) for w in (0.05, 0.1)] == [16.97, 6.94]


@pytest.mark.parametrize(("a", "b"), [((3.0, 7.0), (3.0, 17.0)), ((1.0, 17.0), (4.0, 0.5))])
def test_inner_products_are_integrals(a, b):
    one, two = profile(a[1], a[0]), profile(b[1], b[0])
    expected, _ = quad(lambda step: one(step) * two(step), 0, min(a[0], b[0]))
    for first, second in ((a, b), (b, a)):
        found = inner_products(*map(np.float64, (*first, *second)))
        assert float(found) == pytest.approx(expected, rel=1e-8)


def shares_of_steps(width, end, count):
    """Share of each of `count` steps in the average up to step `end`, as the decays give them."""
    shares, tracked = np.zeros(count), PowerProfile(width)
    for step in range(1, end + 1):
        stays = tracked.decay(step - 1, step)
        shares *= stays
        shares[step - 1] += 1 - stays
    return shares


@pytest.mark.parametrize("width", WIDTHS)
def test_decays_give_each_step_its_part_of_the_profile(width):
    power, count = PowerProfile(width).gamma + 1, 200
    exact = np.diff((np.arange(count + 1) / count) ** power)
    np.testing.assert_allclose(shares_of_steps(width, count, count), exact, rtol=1e-9)


@pytest.mark.parametrize("width", [0.03, 0.08, 0.2])
def test_a_combination_is_the_nearest_one_and_its_error_is_the_true_one(width):
    """Against least squares on profiles that are written out on a fine grid."""
    steps, tracked = [250.0, 500.0, 750.0, 1000.0], [0.05, 0.1]
    members = [(w, s) for s in steps for w in tracked]
    averages = Averages([PowerProfile(w) for w, _ in members], [s for _, s in members])
    found = averages.combine(PowerProfile(width), 1000.0)
    fine = (np.arange(400_000) + 0.5) / 400
    columns = np.stack([profile(PowerProfile(w).gamma, s)(fine) for w, s in members], axis=1)
    wanted = profile(PowerProfile(width).gamma, 1000.0)(fine)
    best = np.linalg.lstsq(columns, wanted)[0]
    best /= best.sum()
    np.testing.assert_allclose(found.coefficients, best, rtol=1e-3, atol=1e-4)
    miss = np.linalg.norm(columns @ found.coefficients - wanted) / np.linalg.norm(wanted)
    assert found.error == pytest.approx(miss, rel=1e-3)


@pytest.mark.parametrize("width", [0.03, 0.08, 0.15, 0.2])
def test_more_snapshots_come_nearer_to_an_average_that_was_tracked(width):
    """The weights of step i are the i-th unit vector, so that an average is its own profile."""
    count, exact = 512, shares_of_steps(width, 512, 512)
    errors = []
    for snapshots in (2, 8, 32):
        ends = [count * (i + 1) // snapshots for i in range(snapshots)]
        members = [(w, end) for end in ends for w in (0.05, 0.1)]
        averages = Averages([PowerProfile(w) for w, _ in members], [end for _, end in members])
        found = averages.combine(PowerProfile(width), count)
        made = sum(
            share * shares_of_steps(w, end, count)
            for share, (w, end) in zip(found.coefficients, members, strict=True)
        )
        assert made.sum() == pytest.approx(1)
        errors.append(np.linalg.norm(made - exact) / np.linalg.norm(exact))
        assert errors[-1] == pytest.approx(found.error, rel=0.1, abs=0.003)
    assert errors[2] < 0.3 * errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.02


def test_a_profile_that_was_tracked_is_its_own_combination():
    members = [(w, end) for end in range(10, 170, 10) for w in (0.05, 0.1)]
    averages = Averages([PowerProfile(w) for w, _ in members], [end for _, end in members])
    for index, (width, end) in enumerate(members):
        found = averages.combine(PowerProfile(width), end)
        np.testing.assert_allclose(found.coefficients, np.eye(len(members))[index], atol=1e-9)


@pytest.mark.parametrize("width", [0.0, -1.0, 0.0001, 0.289, 1.0, float("nan")])
def test_a_width_without_a_profile_is_refused(width):
    with pytest.raises(ValueError, match=r"\AExpected a width [^\n]+ Fix: [^\n]+\Z"):
        PowerProfile(width)
