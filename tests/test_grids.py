import itertools

import pytest

from diffusion_framework import Cosine
from diffusion_framework.grids import grid_of_times, uniform_times


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("strength", [1.0, 0.35])
def test_uniform_times_make_the_steps_asked_for(steps, strength):
    times = uniform_times(steps, strength)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (strength, 0.0)
    gaps = [a - b for a, b in itertools.pairwise(times)]
    assert gaps == pytest.approx([strength / steps] * steps)


def test_a_grid_is_chained_and_made_of_floats():
    grid = grid_of_times(Cosine(), [1.0, 0.7, 0.2, 0.0])
    assert [to for _, to in grid[:-1]] == [now for now, _ in grid[1:]]
    assert all(isinstance(v, float) for pair in grid for level in pair for v in vars(level).values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform_times(0), "at least 1 step; got 0"),
        (lambda: uniform_times(5, 0.0), r"\(0, 1\]; got 0"),
        (lambda: uniform_times(5, 1.2), r"\(0, 1\]; got 1.2"),
        (lambda: grid_of_times(Cosine(), [0.2, 0.5]), "must fall.*got 0.2 then 0.5"),
        (lambda: grid_of_times(Cosine(), [0.5, 0.5]), "must fall"),
        (lambda: grid_of_times(Cosine(), [1.5, 0.5]), "got 1.5"),
        (lambda: grid_of_times(Cosine(), [0.5]), "two times"),
        (lambda: grid_of_times(Cosine(), [0.5, 0.0], -0.1), "not be negative; got -0.1"),
    ],
)
def test_bad_grids(make, message):
    with pytest.raises(ValueError, match=message):
        make()
