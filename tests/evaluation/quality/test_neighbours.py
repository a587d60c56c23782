"""Measures by neighbours on sets made by hand, and against torch-fidelity."""

import pytest
import torch

from diffusion_framework.evaluation.quality import (
    authenticity,
    density_coverage,
    nearest,
    precision_recall,
)


def line(*places):
    return torch.tensor(places, dtype=torch.float64)[:, None]


def test_precision_and_recall_count_samples_within_balls():
    real = line(0, 1, 2, 10)  # radii of the nearest: 1, 1, 1, 8
    samples = line(0.5, 2.5, 40, 41)  # radii 2, 2, 1, 1
    found = precision_recall(samples, real, k=1)
    assert found.precision.value == 0.5  # 0.5 and 2.5 lie in balls
    assert found.recall.value == 0.75  # all but 10: |10 - 2.5| > 2


def test_density_and_coverage_count_balls():
    real = line(0, 1, 2, 10)  # radii of the second nearest: 2, 1, 2, 9
    samples = line(0.5, 3, 30, 40)
    found = density_coverage(samples, real, k=2)
    # 0.5 lies in three balls (and misses that of 10), 3 in those of 2 and 10, the others in none.
    assert found.density.value == pytest.approx((3 + 2) / (2 * 4))
    assert found.coverage.value == 1.0


def test_copies_are_found_with_their_neighbours():
    training = line(0, 1, 5, 9)
    found = nearest(line(0.1, 3, 100), training)
    assert found.index.tolist() == [0, 1, 3]
    assert found.distance.tolist() == pytest.approx([0.1, 2, 91])
    assert found.own.tolist() == [1, 0, 2]
    assert found.own_distance.tolist() == pytest.approx([1, 1, 4])
    assert authenticity(found).value == pytest.approx(2 / 3)


def test_about_half_of_fresh_samples_and_no_copies_are_authentic():
    # A fresh sample and another training sample are about as likely to be the nearer one.
    generator = torch.Generator().manual_seed(0)
    training, fresh = torch.randn(2, 2000, 2, generator=generator)
    found = authenticity(nearest(fresh, training))
    assert found.value == pytest.approx(0.5, abs=0.12)
    assert authenticity(nearest(training, training)).value == 0


def test_equal_distributions_have_density_one_and_the_coverage_of_their_k():
    # Naeem et al. 2020, lemma 2: with equal numbers N of samples, coverage is 1 - 2^-k for large N.
    generator = torch.Generator().manual_seed(1)
    real, samples = torch.rand(2, 3000, 2, generator=generator)
    found = density_coverage(samples, real, k=3)
    assert found.density.value == pytest.approx(1, abs=0.05)
    assert found.coverage.value == pytest.approx(1 - 2**-3, abs=0.03)


@pytest.mark.parametrize("rows", [7, 1024])
def test_precision_and_recall_agree_with_torch_fidelity(rows, monkeypatch):
    fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    monkeypatch.setattr("diffusion_framework.evaluation.quality.neighbours._ROWS", rows)
    generator = torch.Generator().manual_seed(2)
    samples = torch.randn(150, 6, generator=generator, dtype=torch.float64)
    real = torch.randn(200, 6, generator=generator, dtype=torch.float64) * 1.2
    theirs = fidelity.prc_features_to_metric(
        samples, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False
    )
    ours = precision_recall(samples, real, k=3)
    assert (ours.precision.value, ours.recall.value) == pytest.approx(
        (theirs["precision"], theirs["recall"])
    )


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match=r"got 3 for 3 samples\. Fix: measure more samples"):
        precision_recall(torch.rand(3, 2), torch.rand(9, 2), k=3)
