"""The Fréchet distance against closed forms and torch-fidelity."""

import math

import numpy as np
import pytest
import torch

from diffusion_framework.evaluation.quality import (
    GaussianStatistics,
    bootstrap_frechet,
    frechet_distance,
)


def gaussian(mean, covariance):
    return GaussianStatistics(
        torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64)
    )


def test_gaussians_on_a_line_have_the_distance_of_means_and_deviations():
    # For one dimension it is (mu_a - mu_b)² + (s_a - s_b)².
    a, b = gaussian([1.0], [[4.0]]), gaussian([-2.0], [[0.25]])
    assert frechet_distance(a, b) == pytest.approx(9 + 1.5**2, rel=1e-14)


def test_commuting_covariances_have_a_closed_form():
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    first, second = (torch.rand(6, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    means = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    a, b = (
        GaussianStatistics(mean, basis @ torch.diag(values**2) @ basis.T)
        for mean, values in zip(means, (first, second), strict=True)
    )
    exact = (means[0] - means[1]).square().sum() + (first - second).square().sum()
    assert frechet_distance(a, b) == pytest.approx(exact.item(), rel=1e-12)


def test_a_linear_map_gives_the_cost_of_optimal_transport():
    # A symmetric positive T transports N(0, C) optimally to N(0, T C T), at E|x - Tx|².
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    half = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    covariance, map_ = root @ root.T, half @ half.T
    zero, difference = torch.zeros(5, dtype=torch.float64), torch.eye(5).double() - map_
    cost = (difference @ covariance @ difference).trace().item()
    moved = GaussianStatistics(zero, map_ @ covariance @ map_)
    assert frechet_distance(GaussianStatistics(zero, covariance), moved) == pytest.approx(
        cost, rel=1e-10
    )


def test_fewer_samples_than_features_is_exact_too():
    # Two points each: covariances of rank one, whose root of the product is |u·v|.
    a, b = torch.tensor([[0.0] * 9, [2.0] + [0.0] * 8]), torch.tensor([[0.0] * 9, [0.0] * 9])
    b[1, 0], b[1, 1] = 3.0, 4.0
    u, v = a[1] / math.sqrt(2), b[1] / math.sqrt(2)
    exact = (u / math.sqrt(2) - v / math.sqrt(2)).square().sum() + u @ u + v @ v
    assert frechet_distance(a, b) == pytest.approx((exact - 2 * (u @ v).abs()).item(), abs=1e-6)


def test_the_distance_of_equal_sets_is_zero_and_it_is_symmetric():
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(200, 8, generator=generator), torch.rand(100, 8, generator=generator)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_it_agrees_with_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(300, 12, generator=generator), torch.rand(200, 12, generator=generator) * 3
    theirs = fidelity.fid_statistics_to_metric(
        *(fidelity.fid_features_to_statistics(x.double()) for x in (a, b)), verbose=False
    )
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)


def test_statistics_survive_a_file_as_others_read_it(tmp_path):
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(4))
    GaussianStatistics.of(features).save(tmp_path / "new" / "statistics.npz")
    with np.load(tmp_path / "new" / "statistics.npz") as arrays:
        assert np.allclose(arrays["mu"], features.double().mean(0))
        assert np.allclose(arrays["sigma"], np.cov(features.double().numpy(), rowvar=False))
    loaded = GaussianStatistics.load(tmp_path / "new" / "statistics.npz")
    assert frechet_distance(features, loaded) == pytest.approx(0, abs=1e-10)


def test_the_bootstrap_error_is_the_spread_of_repetitions():
    generator = torch.Generator().manual_seed(5)
    reference = gaussian([0.0] * 3, np.eye(3))
    mean = torch.tensor([1.0, 0, 0])
    repeated = torch.tensor(
        [
            frechet_distance(torch.randn(200, 3, generator=generator) + mean, reference)
            for _ in range(300)
        ]
    )
    one = torch.randn(200, 3, generator=generator) + mean
    found = bootstrap_frechet(one, reference, resamples=300)
    assert found.error == pytest.approx(repeated.std().item(), rel=0.2)
    assert found.value == frechet_distance(one, reference)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(1, 3), torch.ones(5, 3), "at least 2 samples"),
        (torch.ones(5, 3), torch.full((5, 3), math.nan), "finite features"),
        (torch.rand(5, 3), torch.rand(5, 4), "equal numbers of features, got 3 and 4"),
    ],
)
def test_bad_features_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


@pytest.mark.parametrize("arrays", [{"mu": np.ones(3)}, {"mu": np.ones(3), "sigma": np.ones(3)}])
def test_a_file_without_statistics_is_refused(arrays, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=r"x\.npz: expected .*mu .*sigma.* Fix: "):
        GaussianStatistics.load(tmp_path / "x.npz")
