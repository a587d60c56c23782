"""Measuring whole sets of images: real ones, files and samples of models."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from toys import tiny_diffusion

from diffusion_framework.data import Digits
from diffusion_framework.evaluation.features import FeatureNetwork, read_images
from diffusion_framework.evaluation.quality import (
    GaussianStatistics,
    QualityMeter,
    draw_images,
    load_samples,
    quality_table,
    save_nearest,
    save_samples,
    write_quality,
)


class Pixels(FeatureNetwork):
    """Four means of the pixels, and a class from the first."""

    class_names = ("dark", "bright")

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)

    def classify(self, features):
        return (features[:, 0] > 0.5).long()


@pytest.fixture(scope="module")
def digits():
    return {split: Digits(labels=True, split=split) for split in ("train", "test")}


def test_real_images_are_the_best_and_noise_is_worse(digits):
    meter = QualityMeter(Pixels(), digits["test"], training=digits["train"], show_progress=False)
    noise = torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8)
    measured, _ = meter.measure("noise", noise)
    training, held_out = meter.real(200)
    assert training.count == 200 and held_out.count == len(digits["test"])
    assert measured.frechet.value > 20 * training.frechet.value
    assert measured.kernel.value > 20 * abs(training.kernel.value)
    assert measured.precision.value < 0.1 < 0.8 < training.precision.value
    assert held_out.authenticity.value > 0.3


def test_copies_are_seen_and_drawn_beside_their_source(digits, tmp_path):
    meter = QualityMeter(Pixels(), digits["test"], training=digits["train"], show_progress=False)
    copies, _ = read_images(digits["train"], range(0, 40, 2))
    quality, neighbours = meter.measure("copies", copies)
    assert quality.authenticity.value == 0
    assert neighbours.index.tolist() == [*range(0, 40, 2)]
    save_nearest(copies, meter.training_pictures, neighbours, tmp_path / "pairs.png", count=4)
    picture = np.asarray(Image.open(tmp_path / "pairs.png"))[2:-2, 2:-2]
    columns = [picture[:, 50 * i : 50 * i + 48] for i in range(8)]
    assert all(np.array_equal(columns[i], columns[i + 1]) for i in (0, 2, 4, 6))
    assert not np.array_equal(columns[0], columns[2])


def test_a_fraction_of_training_images_is_found_by_its_own_index(digits):
    meter = QualityMeter(
        Pixels(), digits["test"], training=digits["train"], num_images=50, show_progress=False
    )
    images, _ = read_images(digits["train"], meter.chosen[[3, 12, 24, 30, 40, 44]])
    _, neighbours = meter.measure("copies", images)
    assert neighbours.index.tolist() == [3, 12, 24, 30, 40, 44]
    assert torch.equal(meter.training_pictures(neighbours.index), images)


def test_agreement_compares_classes_asked_for_with_those_seen(digits):
    meter = QualityMeter(Pixels(), digits["test"], show_progress=False)
    dark, bright = torch.zeros(6, 1, 8, 8).byte(), torch.full((6, 1, 8, 8), 255).byte()
    images, labels = torch.cat([dark, bright]), torch.tensor([0] * 6 + [1] * 3 + [0] * 3)
    quality, _ = meter.measure("asked", images, labels)
    assert quality.agreement.value == 0.75


def test_labels_have_the_proportions_of_the_reference(digits):
    meter = QualityMeter(Pixels(), digits["test"], show_progress=False)
    meter.labels = torch.tensor([2] * 30 + [0] * 10)
    assert torch.bincount(meter.labels_for(8, 3)).tolist() == [2, 0, 6]
    meter.labels = None
    assert meter.labels_for(5, 3).tolist() == [0, 1, 2, 0, 1]


def test_statistics_alone_give_the_distance_to_the_images_they_came_from(digits, tmp_path):
    whole = QualityMeter(Pixels(), digits["test"], show_progress=False)
    GaussianStatistics.of(whole.reference).save(tmp_path / "statistics.npz")
    alone = QualityMeter(
        Pixels(), GaussianStatistics.load(tmp_path / "statistics.npz"), show_progress=False
    )
    images, _ = read_images(digits["train"], range(100))
    (first, _), (second, _) = (meter.measure("x", images) for meter in (whole, alone))
    assert second.frechet.value == pytest.approx(first.frechet.value, rel=1e-9)
    assert second.kernel is None and alone.real(10) == []


def test_samples_survive_a_file_as_others_read_it(tmp_path):
    images = torch.randint(0, 256, (3, 3, 4, 5), dtype=torch.uint8)
    save_samples(images, tmp_path / "new" / "x.npz", torch.arange(3))
    with np.load(tmp_path / "new" / "x.npz") as arrays:
        assert arrays["arr_0"].shape == (3, 4, 5, 3) and arrays["arr_1"].tolist() == [0, 1, 2]
    assert torch.equal(load_samples(tmp_path / "new" / "x.npz"), images)


@pytest.mark.parametrize(
    "content", [b"", b"PK nonsense", {"x": np.ones(3)}, {"arr_0": np.ones((2, 4, 4, 3))}]
)
def test_a_file_without_images_is_refused(content, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "x.npz").write_bytes(content)
    else:
        np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(ValueError, match=r"x\.npz: expected .*arr_0.* Fix: "):
        load_samples(tmp_path / "x.npz")


def test_drawn_images_do_not_depend_on_the_batch_and_are_those_of_sample():
    diffusion = tiny_diffusion().eval()
    options = {"sampler": "ddim", "calls": 2, "show_progress": False, "seed": 5}
    whole = draw_images(diffusion, 5, batch_size=5, **options)
    parts = draw_images(diffusion, 5, batch_size=2, **options)
    assert whole.dtype == torch.uint8 and len(whole) == 5
    # A value at the middle between two bytes may be rounded either way.
    assert (whole.int() - parts.int()).abs().max() <= 1


def test_the_table_and_the_file_hold_the_same_numbers(digits, tmp_path):
    meter = QualityMeter(Pixels(), digits["test"], show_progress=False)
    images, _ = read_images(digits["train"], range(100))
    rows = [meter.measure("run DDIM 5", images)[0], *meter.real(100)]
    table = quality_table(rows).splitlines()
    assert len(table) == 3 and len({len(line) for line in table}) == 1
    assert "recall" in table[0] and "authentic" not in table[0]
    write_quality(rows, {"seed": 1}, tmp_path / "quality.json")
    written = json.loads((tmp_path / "quality.json").read_text())
    assert written["seed"] == 1
    first = written["results"][0]
    assert first["frechet"]["value"] == rows[0].frechet.value
    assert f"{first['precision']['value']:.3f} ± " in table[1]
