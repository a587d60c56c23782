import itertools
import math

import numpy as np
import pytest

from diffusion_framework.samplers.grids import (
    distilled_times,
    respaced_times,
    spaced_times,
    times_of_steps,
    uniform_times,
)


def steps_of(times, trained):
    """Returns the numbers of the training steps at these times, from noisy to clean."""
    assert times[-1] == 0
    return [round(t * trained) - 1 for t in times[:-1]]


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("strength", [1.0, 0.35])
def test_uniform_times_have_the_requested_number_of_steps(steps, strength):
    times = uniform_times(steps, strength)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (strength, 0.0)
    gaps = [a - b for a, b in itertools.pairwise(times)]
    assert gaps == pytest.approx([strength / steps] * steps)


@pytest.mark.parametrize("trained", [7, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spaced_times_have_exactly_the_requested_number_of_steps(spacing, trained):
    for steps in range(1, trained + 1):
        numbers = steps_of(spaced_times(steps, spacing, trained), trained)
        assert len(set(numbers)) == len(numbers) == steps
        assert all(0 <= to < now < trained for now, to in itertools.pairwise([*numbers]))
        gaps = [now - to for now, to in itertools.pairwise(numbers)]
        rounding = 0 if spacing == "leading" else 1
        assert not gaps or max(gaps) - min(gaps) <= rounding
        if spacing == "leading":
            assert numbers[-1] == 0
        else:
            assert numbers[0] == trained - 1
        if spacing == "linspace" and steps > 1:
            assert numbers[-1] == 0


def test_spacings_match_the_published_formulas():
    n, trained = 50, 1000
    leading = (np.arange(n) * (trained // n)).round()[::-1]
    trailing = np.round(np.arange(trained, 0, -trained / n)) - 1
    linspace = np.linspace(0, trained - 1, n).round()[::-1]
    assert steps_of(spaced_times(n, "leading"), trained) == leading.tolist()
    assert steps_of(spaced_times(n, "leading", offset=1), trained) == (leading + 1).tolist()
    assert steps_of(spaced_times(n, "trailing"), trained) == trailing.tolist()
    assert steps_of(spaced_times(n, "linspace"), trained) == linspace.tolist()


@pytest.mark.parametrize(("original", "trained"), [(50, 1000), (20, 1000), (7, 100), (10, 10)])
@pytest.mark.parametrize("strength", [1.0, 0.58, 0.3])
def test_distilled_times_are_evenly_chosen_steps_of_the_distillation(original, trained, strength):
    stride, count = trained // original, math.floor(round(original * strength, 6))
    distilled = [number * stride - 1 for number in range(1, count + 1)]
    for steps in range(1, count + 1):
        numbers = steps_of(distilled_times(steps, original, trained, strength), trained)
        assert len(numbers) == steps and numbers[0] == distilled[-1]
        positions = [distilled.index(number) for number in numbers]
        gaps = [a - b for a, b in itertools.pairwise([*positions, -1])]
        assert max(gaps) - min(gaps) <= 1
    for options in (
        {"steps": count + 1},
        {"steps": 0},
        {"steps": 1, "original": 2000},
        {"steps": 1, "strength": 1.1},
    ):
        with pytest.raises(ValueError, match="got"):
            distilled_times(
                **{"original": original, "trained": trained, "strength": strength, **options}
            )


def test_trailing_has_n_steps_where_arange_on_floats_has_one_more():
    counts = [n for n in range(1, 1001) if len(np.arange(1000, 0, -1000 / n)) != n]
    assert counts
    for n in counts:
        assert len(spaced_times(n, "trailing")) == n + 1


def test_each_section_has_the_requested_steps_from_its_first_to_its_last():
    numbers = steps_of(respaced_times("10,15,20", 300), 300)
    assert [sum(low <= n < low + 100 for n in numbers) for low in (0, 100, 200)] == [10, 15, 20]
    for low in (0, 100, 200):
        inside = [n for n in numbers if low <= n < low + 100]
        assert (inside[-1], inside[0]) == (low, low + 99)
    assert numbers == sorted(numbers, reverse=True)


def published_steps(count, trained):
    """Returns round(0), round(s), round(s + s), ..., as Nichol & Dhariwal 2021 add strides up."""
    place, steps = 0.0, []
    for _ in range(count):
        steps.append(round(place))
        place += (trained - 1) / max(count - 1, 1)
    return steps[::-1]


def test_respaced_steps_are_the_published_ones_to_the_last_rounding():
    for count in range(1, 1001):
        assert steps_of(respaced_times(str(count), 1000), 1000) == published_steps(count, 1000)
    middle = [n for n in steps_of(respaced_times("10,15,20", 300), 300) if 100 <= n < 200]
    assert middle == [100 + n for n in published_steps(15, 100)]
    assert 149 in middle and 150 not in middle  # seven strides sum to just below 49.5


@pytest.mark.parametrize("trained", [100, 101, 1000])
def test_one_section_is_linspace_and_full_sections_give_all_steps(trained):
    for n in (2, 25, 50, trained):
        assert respaced_times(str(n), trained) == spaced_times(n, "linspace", trained)
    third, extra = divmod(trained, 3)
    full = ",".join(str(third + (i < extra)) for i in range(3))
    assert steps_of(respaced_times(full, trained), trained) == list(range(trained))[::-1]


@pytest.mark.parametrize("n", [1, 50, 100, 250, 334, 1000])
def test_ddim_respacing_is_a_whole_stride_from_the_first_step(n):
    numbers = steps_of(respaced_times(f"ddim{n}"), 1000)
    assert len(numbers) == n and numbers[-1] == 0
    assert len({now - to for now, to in itertools.pairwise(numbers)}) <= 1


def test_training_step_i_of_n_lies_at_time_i_plus_1_over_n():
    assert times_of_steps([999, 499, 0]) == [1.0, 0.5, 0.001, 0.0]
    assert times_of_steps(np.array([3, 1]), trained=4) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform_times(0), "from 1 to 100000, got 0"),
        (lambda: uniform_times(5, 0.0), r"\(0, 1\], got 0"),
        (lambda: uniform_times(5, 1.2), r"\(0, 1\], got 1.2"),
        (lambda: uniform_times(5, math.nan), r"\(0, 1\], got nan"),
        (lambda: spaced_times(0, "leading"), "from 1 to 100000, got 0"),
        (lambda: spaced_times(1001, "trailing"), "1000 training steps, got 1001"),
        (lambda: spaced_times(10, "middle"), "'linspace', got 'middle'"),
        (lambda: spaced_times(10, "trailing", offset=1), "leading spacing only, got offset=1"),
        (lambda: spaced_times(1000, "leading", offset=1), "from 0 to 999.*got 1000"),
        (lambda: spaced_times(10, "leading", offset=-1), "from 0 to 999.*got -1"),
        (lambda: times_of_steps([]), "at least one training step, got none"),
        (lambda: times_of_steps([1000]), "from 0 to 999.*got 1000"),
        (lambda: times_of_steps([2.5]), "whole numbers.*got 2.5"),
        (lambda: times_of_steps([math.nan]), "got nan"),
        (lambda: times_of_steps([1, 2]), "falling training steps"),
        (lambda: times_of_steps([2, 2]), "falling training steps"),
        (lambda: respaced_times("ten"), "got 'ten'"),
        (lambda: respaced_times(""), "got ''"),
        (lambda: respaced_times("0"), "got '0'"),
        (lambda: respaced_times("-5"), "got '-5'"),
        (lambda: respaced_times("10,,5"), "got '10,,5'"),
        (lambda: respaced_times("ddim10,20"), "got 'ddim10,20'"),
        (
            lambda: respaced_times("ddim600"),
            "whole stride through 1000 training steps, got 'ddim600'.*use '600'",
        ),
        (lambda: respaced_times("1001"), "at most 1000 steps.*got 1001"),
        (lambda: respaced_times("5,5,5", trained=12), "at most 4 steps in a section of 4"),
    ],
)
def test_bad_values_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
