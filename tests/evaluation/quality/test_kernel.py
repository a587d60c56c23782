"""The kernel distance against closed forms, all pairs and torch-fidelity."""

import itertools

import pytest
import torch

from diffusion_framework.evaluation.quality import kernel_distance


def kernel(x, y):
    return ((x @ y) / len(x) + 1) ** 3


def normal(count, features, mean, deviation, seed):
    generator = torch.Generator().manual_seed(seed)
    return mean + deviation * torch.randn(count, features, generator=generator, dtype=torch.float64)


def test_it_is_the_sum_over_all_pairs():
    x, y = normal(6, 3, 0, 1, 0), normal(5, 3, 1, 2, 1)
    pairs = [
        sum(kernel(a, b) for a, b in itertools.permutations(one, 2)) / (len(one) * (len(one) - 1))
        for one in (x, y)
    ]
    cross = sum(kernel(a, b) for a in x for b in y) / 30
    assert kernel_distance(x, y).value == pytest.approx(float(sum(pairs) - 2 * cross), rel=1e-12)


def closed_form(mean_x, mean_y):
    """Returns the distance of N(mean_x, 1) and N(mean_y, 1) on a line: a sum over moments."""
    x, y = ((m, m**2 + 1, m**3 + 3 * m) for m in (mean_x, mean_y))
    return sum(c * (a - b) ** 2 for c, a, b in zip((3, 3, 1), x, y, strict=True))


def test_its_mean_and_error_are_those_of_repetitions():
    exact = closed_form(0.0, 0.4)
    found = [
        kernel_distance(normal(60, 1, 0, 1, 2 * i), normal(40, 1, 0.4, 1, 2 * i + 1))
        for i in range(600)
    ]
    values = torch.tensor([one.value for one in found])
    # The mean of 600 repetitions lies within 4 of its standard errors: no bias.
    assert values.mean().item() == pytest.approx(exact, abs=4 * values.std().item() / 600**0.5)
    errors = torch.tensor([one.error for one in found])
    assert errors.square().mean().sqrt().item() == pytest.approx(values.std().item(), rel=0.25)


def test_the_error_is_that_of_the_jackknife():
    x, y = normal(9, 2, 0, 1, 0), normal(7, 2, 1, 1, 1)
    variance = 0.0
    for one, rest in ((x, lambda left: (left, y)), (y, lambda left: (x, left))):
        values = torch.tensor(
            [
                kernel_distance(*rest(torch.cat([one[:i], one[i + 1 :]]))).value
                for i in range(len(one))
            ]
        ).double()
        variance += (len(one) - 1) / len(one) * (values - values.mean()).square().sum().item()
    assert kernel_distance(x, y).error == pytest.approx(variance**0.5, rel=1e-6)


def test_it_agrees_with_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = normal(80, 5, 0, 1, 0), normal(80, 5, 0.3, 1, 1)
    theirs = fidelity.kid_features_to_metric(
        x, y, kid_subsets=1, kid_subset_size=80, verbose=False, rng_seed=0
    )
    assert kernel_distance(x, y).value == pytest.approx(
        theirs["kernel_inception_distance_mean"], rel=1e-9
    )


def test_it_does_not_depend_on_how_rows_are_parted(monkeypatch):
    x, y = normal(50, 4, 0, 1, 0), normal(30, 4, 1, 1, 1)
    whole = kernel_distance(x, y)
    monkeypatch.setattr("diffusion_framework.evaluation.quality.kernel._ROWS", 7)
    parted = kernel_distance(x, y)
    assert (whole.value, whole.error) == pytest.approx((parted.value, parted.error), rel=1e-10)
