"""The digits of scikit-learn as a dataset."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from diffusion_framework.data import Digits


def test_8_x_8_images_keep_the_original_values():
    digits = Digits()
    values = load_digits().images
    assert len(digits) == len(values) == 1797
    stored = torch.stack([digits[i] for i in range(len(digits))])
    assert stored.dtype == torch.uint8
    assert stored.shape == (1797, 1, 8, 8)
    np.testing.assert_array_equal(np.rint(stored[:, 0].numpy() * (16 / 255)), values)
    assert (stored.min(), stored.max()) == (0, 255)


def test_labels_are_the_digits():
    digits = Digits(labels=True)
    assert [digits[i][1] for i in range(len(digits))] == load_digits().target.tolist()
    assert digits.class_names == [str(i) for i in range(10)]
    assert Digits().class_names == []


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_have_the_requested_size_and_channels(channels):
    image = Digits((16, 24), channels)[5]
    assert image.shape == (channels, 16, 24)
    assert image.is_contiguous()
    if channels > 1:
        assert torch.equal(image[0], image[1])
    if channels == 4:
        assert (image[3] == 255).all()


def test_splits_are_disjoint_complete_and_balanced():
    def contents(split):
        digits = Digits(labels=True, split=split)
        return [
            (image.numpy().tobytes(), label)
            for image, label in (digits[i] for i in range(len(digits)))
        ]

    train, test = contents("train"), contents("test")
    assert sorted(train + test) == sorted(contents("all"))
    assert not set(train) & set(test)
    assert 0.19 < len(test) / 1797 < 0.21
    counts = np.bincount([label for _, label in test])
    assert counts.min() > 0.8 * counts.max()


def test_each_split_has_its_own_fingerprint():
    assert len({Digits(split=split).fingerprint() for split in ("all", "train", "test")}) == 3
    assert Digits().fingerprint() == Digits(16, 3, labels=True).fingerprint()


def test_epochs_are_equal_and_samples_are_copies():
    digits = Digits()
    first = digits.draw(0, 3)
    kept = first.clone()
    first.zero_()
    assert torch.equal(digits[0], kept)


@pytest.mark.parametrize("index", [-1, 1797])
def test_an_index_out_of_range_is_an_error(index):
    with pytest.raises(IndexError):
        Digits()[index]


@pytest.mark.parametrize(
    ("options", "message"), [({"channels": 2}, "channels"), ({"image_size": 0}, "image_size")]
)
def test_bad_options_are_named_in_the_error(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options)
