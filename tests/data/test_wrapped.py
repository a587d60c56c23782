"""Conversion of other data to a `TrainingDataset`."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from diffusion_framework import Digits
from diffusion_framework.data.wrapped import as_dataset
from diffusion_framework.storage.config import to_config

IMAGES = torch.rand(5, 1, 4, 4)


class Named:
    """Samples with a length, but indexed by names."""

    def __len__(self):
        return 2

    def __getitem__(self, key):
        return {"a": 1, "b": 2}[key]


def test_a_training_dataset_is_returned_unchanged():
    digits = Digits()
    assert as_dataset(digits) is digits


@pytest.mark.parametrize(
    "data",
    [IMAGES, IMAGES.numpy(), list(IMAGES), TensorDataset(IMAGES), [(image, 3) for image in IMAGES]],
    ids=["tensor", "array", "list", "PyTorch dataset", "pairs"],
)
def test_many_kinds_of_samples_are_collated_into_batches(data):
    dataset = as_dataset(data)
    assert len(dataset) == 5 and dataset.fingerprint() == "5"
    batch = dataset.take(np.array([3, 1]))
    images, *labels = batch if isinstance(batch, list) else [batch]
    assert torch.equal(images, IMAGES[[3, 1]])
    assert all(torch.equal(label, torch.tensor([3, 3])) for label in labels)
    assert to_config(dataset)["init_args"] is None, "a config holds no data"


def test_conditions_are_collated_by_name():
    data = [(image, {"labels": i, "text": f"image {i}"}) for i, image in enumerate(IMAGES)]
    images, condition = as_dataset(data).take(np.array([4, 0]))
    assert torch.equal(images, IMAGES[[4, 0]])
    assert condition["labels"].tolist() == [4, 0] and condition["text"] == ["image 4", "image 0"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((image for image in IMAGES), "a length and an index, got generator. Fix: give a list"),
        (7, "a length and an index, got int"),
        ([], "at least 1 sample, got an empty list"),
        (["a.png"], "each sample as a tensor or array, .* got str from list"),
        ([{"image": 1, "label": 2}], "got a dictionary of image, label from list. Fix: "),
        ([(IMAGES[0], 1, 2)], "got tuple of Tensor, int, int from list"),
        ([(IMAGES[0], "cat")], "got tuple of Tensor, str from list"),
        (Named(), "samples indexed from 0, got Named"),
    ],
)
def test_other_data_is_a_one_line_error(data, message):
    with pytest.raises(ValueError, match=f"Expected .*{message}") as caught:
        as_dataset(data)
    assert "\n" not in str(caught.value)
