import itertools
import math

import pytest
import scipy.stats

from diffusion_framework.process.schedules import (
    EDM,
    VE,
    Cosine,
    Flow,
    LinearBeta,
    Scaled,
    ScaledLinearBeta,
    Sigmoid,
)
from diffusion_framework.samplers.grids import (
    beta_sigmas,
    exponential_sigmas,
    grid_of_log_snrs,
    grid_of_sigmas,
    grid_of_times,
    karras_sigmas,
    partial_grid,
    spaced_times,
    uniform_log_snrs,
    uniform_times,
)

SCHEDULES = [
    Cosine(),
    Sigmoid(),
    Flow(),
    LinearBeta(),
    LinearBeta(zero_terminal_snr=True),
    VE(),
    EDM(),
    Scaled(EDM(), 2),
]
GRIDS = {
    "uniform": lambda s: grid_of_times(s, uniform_times(10)),
    "time_difference": lambda s: grid_of_times(s, uniform_times(10), 0.03),
    "trailing": lambda s: grid_of_times(s, spaced_times(10, "trailing")),
    "custom times": lambda s: grid_of_times(s, [0.9, 0.3]),
    "one time": lambda s: grid_of_times(s, [0.5]),
    "log_snr": lambda s: grid_of_log_snrs(s, uniform_log_snrs(s, 10, 0.99)),
    "one log_snr": lambda s: grid_of_log_snrs(s, [0.0]),
    "karras": lambda s: grid_of_sigmas(s, karras_sigmas(10, 0.02, 10.0)),
    "beta": lambda s: grid_of_sigmas(s, beta_sigmas(10, 0.02, 10.0)),
    "exponential": lambda s: grid_of_sigmas(s, exponential_sigmas(10, 0.02, 10.0)),
    "custom sigmas": lambda s: grid_of_sigmas(s, [7.0, 2.0, 0.1]),
    "partial": lambda s: partial_grid(s, grid_of_times(s, uniform_times(10)), 0.5),
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("make", GRIDS.values(), ids=GRIDS)
def test_every_grid_falls_to_the_clean_level_in_floats(make, schedule):
    grid = make(schedule)
    assert grid.end == schedule.clean
    assert all(type(v) is float for pair in grid for level in pair for v in vars(level).values())
    for now, to in grid:
        assert now.log_snr < to.log_snr and now.t >= to.t and now.sigma > 0
    assert all(a[0].log_snr < b[0].log_snr for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize(
    "make", [make for name, make in GRIDS.items() if name != "time_difference"]
)
def test_a_step_starts_where_the_one_before_ended(make):
    grid = make(EDM())
    assert [to for _, to in grid[:-1]] == [now for now, _ in grid[1:]]


@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_grids_by_noise_have_the_requested_number_of_steps(steps):
    for schedule in (Cosine(), EDM(), VE()):
        assert len(grid_of_sigmas(schedule, karras_sigmas(steps, 0.02, 10.0))) == steps
        assert len(grid_of_sigmas(schedule, exponential_sigmas(steps, 0.02, 10.0))) == steps
        assert len(grid_of_sigmas(schedule, beta_sigmas(steps, 0.02, 10.0))) == steps
        assert len(grid_of_log_snrs(schedule, uniform_log_snrs(schedule, steps))) == steps


def test_a_schedule_with_noise_at_time_0_gets_one_more_step_to_the_clean_end():
    assert len(grid_of_times(Cosine(), uniform_times(5))) == 5
    grid = grid_of_times(EDM(), uniform_times(5))
    assert len(grid) == 6
    assert grid[-1] == (EDM().at(0.0), EDM().clean)
    assert grid_of_times(EDM(), uniform_times(5), clean=False) == grid[:-1]


def test_without_the_clean_end_a_grid_ends_at_its_last_value():
    assert grid_of_times(Cosine(), [0.8, 0.4, 0.2], clean=False)[-1][1] == Cosine().at(0.2)
    assert grid_of_sigmas(Cosine(), [3.0, 1.0], clean=False)[-1][1].log_snr == 0
    assert grid_of_log_snrs(Cosine(), [-1.0, 1.0], clean=False)[-1][1].log_snr == 1


def test_a_clean_end_in_the_list_is_not_added_twice():
    assert grid_of_times(Cosine(), [0.8, 0.4, 0.0]) == grid_of_times(Cosine(), [0.8, 0.4])
    assert grid_of_sigmas(EDM(), [3.0, 1.0, 0.0]) == grid_of_sigmas(EDM(), [3.0, 1.0])
    assert grid_of_log_snrs(EDM(), [0.0, 1.0, math.inf]) == grid_of_log_snrs(EDM(), [0.0, 1.0])


def test_time_difference_lowers_the_end_of_each_step_but_not_below_0():
    grid = grid_of_times(Cosine(), [0.8, 0.4, 0.2, 0.0], 0.25)
    assert [(now.t, to.t) for now, to in grid] == [
        (0.8, pytest.approx(0.15)),
        (0.4, 0.0),
        (0.2, 0.0),
    ]


@pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow(), Scaled(Cosine(), 0.5)], ids=repr)
def test_levels_have_the_requested_noise(schedule):
    sigmas = [9.0, 2.5, 0.3, 0.01]
    assert [now.sigma / now.alpha for now, _ in grid_of_sigmas(schedule, sigmas)] == pytest.approx(
        sigmas, rel=1e-13
    )
    log_snrs = [-4.0, 0.0, 3.3]
    assert [now.log_snr for now, _ in grid_of_log_snrs(schedule, log_snrs)] == log_snrs


def test_an_even_grid_in_time_is_karras_on_edm_and_exponential_on_ve():
    """Each schedule was proposed as such a grid (Karras et al. 2022, eq. 5; Song et al. 2021b)."""
    for schedule, sigmas in (
        (EDM(), karras_sigmas(11)),
        (VE(), exponential_sigmas(11, 0.01, 50.0)),
    ):
        by_time = [now.sigma for now, _ in grid_of_times(schedule, uniform_times(10))]
        assert by_time == pytest.approx(sigmas[:-1], rel=1e-12)
        assert [now.sigma for now, _ in grid_of_sigmas(schedule, sigmas)] == pytest.approx(
            sigmas[:-1], rel=1e-12
        )


def test_karras_sigmas_are_exponential_for_large_rho_and_even_for_rho_1():
    assert karras_sigmas(9, rho=1e7) == pytest.approx(exponential_sigmas(9), rel=1e-5)
    gaps = [a - b for a, b in itertools.pairwise(karras_sigmas(9, rho=1.0)[:-1])]
    assert gaps == pytest.approx([gaps[0]] * 8)
    for sigmas in (karras_sigmas(9), exponential_sigmas(9)):
        assert (sigmas[0], sigmas[-2], sigmas[-1]) == (80.0, 0.002, 0.0)


def test_beta_sigmas_are_quantiles_of_the_distribution():
    for a, b in ((0.6, 0.6), (1.0, 1.0), (2.0, 0.5)):
        sigmas = beta_sigmas(9, 1.0, 3.0, a, b)
        assert (sigmas[0], sigmas[-2], sigmas[-1]) == (3.0, 1.0, 0.0)
        for i, sigma in enumerate(sigmas[1:-2], 1):
            share_below = scipy.stats.beta.cdf((sigma - 1) / 2, a, b)
            assert share_below == pytest.approx(1 - i / 8)


def test_exponential_sigmas_are_even_in_log_snr():
    schedule = Sigmoid()
    log_snrs = uniform_log_snrs(schedule, 12, strength=0.9, last_time=0.01)
    first, last = schedule.at(0.9), schedule.at(0.01)
    sigmas = exponential_sigmas(12, last.sigma / last.alpha, first.sigma / first.alpha)
    assert [-2 * math.log(sigma) for sigma in sigmas[:-1]] == pytest.approx(
        log_snrs[:-1], rel=1e-12
    )


def test_pure_noise_can_start_a_grid():
    grid = grid_of_sigmas(Flow(), [math.inf, 1.0])
    assert grid.start == Flow().at(1.0) and grid.start.alpha == 0
    with pytest.raises(ValueError, match="range"):
        grid_of_sigmas(EDM(), [math.inf, 1.0])


@pytest.mark.parametrize("strength", [1.0, 0.8, 0.35, 0.02])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_partial_grid_keeps_a_share_of_strength_of_evenly_spaced_steps(strength, spacing):
    schedule = ScaledLinearBeta()
    grid = grid_of_times(schedule, spaced_times(50, spacing))
    partial = partial_grid(schedule, grid, strength)
    assert partial == grid[-len(partial) :]
    assert len(partial) in (math.floor(50 * strength), math.ceil(50 * strength))
    assert partial[0][0].t <= strength


@pytest.mark.parametrize("schedule", [Cosine(), Flow(), EDM(), ScaledLinearBeta()], ids=repr)
def test_a_partial_grid_of_few_steps_starts_at_strength_itself(schedule):
    for times, strength in (([1.0], 0.5), ([1.0, 0.5], 0.4), ([1.0, 0.5], 1e-3)):
        grid = grid_of_times(schedule, times)
        partial = partial_grid(schedule, grid, strength)
        assert partial.start == schedule.at(strength) and partial.is_connected
        assert partial[1:] == grid[len(times) :] and partial.end == schedule.clean


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid_of_times(Cosine(), [0.2, 0.5]), "falling times.*got 0.2 then 0.5"),
        (lambda: grid_of_times(Cosine(), [0.5, 0.5]), "falling times"),
        (lambda: grid_of_times(Cosine(), [0.5, math.nan]), "falling times.*got 0.5 then nan"),
        (lambda: grid_of_times(Cosine(), [math.nan]), "got nan"),
        (lambda: grid_of_times(Cosine(), [1.5, 0.5]), "got 1.5"),
        (lambda: grid_of_times(Cosine(), [0.5, -0.1]), "got -0.1"),
        (lambda: grid_of_times(Cosine(), []), "two times"),
        (lambda: grid_of_times(Cosine(), [0.0]), "two times"),
        (lambda: grid_of_times(Cosine(), [0.5], clean=False), "two times"),
        (lambda: grid_of_times(Cosine(), [0.5, 0.0], -0.1), "at least 0, got -0.1"),
        (lambda: grid_of_times(Cosine(), [0.5, 0.0], math.nan), "at least 0, got nan"),
        (lambda: grid_of_log_snrs(Cosine(), [1.0, 0.0]), "rising log-SNR.*got 1 then 0"),
        (lambda: grid_of_log_snrs(Cosine(), [math.nan]), "rising log-SNR.*got nan"),
        (lambda: grid_of_log_snrs(Cosine(), [math.inf]), "two levels"),
        (lambda: grid_of_log_snrs(Cosine(), []), "two levels"),
        (lambda: grid_of_log_snrs(EDM(), [-9.0, 0.0]), "range.*got -9"),
        (lambda: grid_of_log_snrs(EDM(), [0.0, 15.0]), "range.*got 15"),
        (lambda: grid_of_log_snrs(EDM(), [-math.inf, 0.0]), "range.*got -inf"),
        (
            lambda: grid_of_sigmas(ScaledLinearBeta(), [80.0, 1.0]),
            "sigma / alpha from 14.6.* 0.*sigma / alpha 80",
        ),
        (lambda: grid_of_sigmas(EDM(), [0.0]), "two levels"),
        (lambda: grid_of_sigmas(EDM(), [1.0, 2.0]), "falling sigmas.*got 1 then 2"),
        (lambda: grid_of_sigmas(EDM(), [1.0, -2.0]), "at least 0, got -2"),
        (lambda: grid_of_sigmas(EDM(), [math.nan]), "got nan"),
        (lambda: grid_of_sigmas(EDM(), [1.0, 0.0, 0.0]), "falling sigmas"),
        (lambda: uniform_log_snrs(Cosine(), 0), "from 1 to 100000"),
        (lambda: uniform_log_snrs(Cosine(), 5, strength=0.0), "got last_time=0.001, strength=0.0"),
        (lambda: uniform_log_snrs(Cosine(), 5, strength=1.1), "strength=1.1"),
        (lambda: uniform_log_snrs(Cosine(), 5, last_time=0.0), "got inf at last_time=0.0"),
        (lambda: uniform_log_snrs(Flow(), 5), "got -inf at strength=1.0"),
        (lambda: karras_sigmas(0), "from 1 to 100000"),
        (lambda: karras_sigmas(5, sigma_min=0.0), "got sigma_min=0.0"),
        (lambda: karras_sigmas(5, sigma_max=math.nan), "sigma_max=nan"),
        (lambda: karras_sigmas(5, rho=0.0), "Expected rho above 0.*got 0.0"),
        (lambda: beta_sigmas(5, alpha=0.0), "alpha=0.0"),
        (lambda: exponential_sigmas(5, 2.0, 1.0), "sigma_min=2.0"),
        (lambda: partial_grid(Cosine(), grid_of_times(Cosine(), [0.5]), 0.0), r"\(0, 1\], got 0.0"),
        (lambda: partial_grid(Cosine(), grid_of_times(Cosine(), [0.5]), 1.01), "got 1.01"),
        (lambda: partial_grid(Cosine(), grid_of_times(Cosine(), [0.5]), math.nan), "got nan"),
        (
            lambda: partial_grid(Cosine(), grid_of_times(Cosine(), [0.7, 0.5], clean=False), 0.4),
            "got strength=0.4 and a grid that ends at 0.5",
        ),
        (lambda: partial_grid(Cosine(), [], 0.4), "got strength=0.4 and an empty grid"),
    ],
)
def test_bad_values_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
