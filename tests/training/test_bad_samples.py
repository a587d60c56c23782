"""A sample that training cannot use is named by its index in the data."""

from __future__ import annotations

import math

import pytest
import torch
from toys import QUIET, Plain

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.spaces import ImageSpace, Unbounded
from diffusion_framework.spaces.base import InvalidSampleError, check_encoded

BAD = 5


def images(value: float, count: int = 8) -> torch.Tensor:
    data = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data[BAD, 0, 1, 2] = value
    return data


def train(folder, data, **options):
    model = GaussianDiffusion(Plain(), timesteps=2, space=options.pop("space", None))
    defaults = {"train_batch_size": 3, "train_num_steps": 20, "save_and_sample_every": 50}
    run = Trainer(model, data, results_folder=folder, **{**defaults, **QUIET, **options})
    run.train()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 255.0])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulate_every": 3}], ids=["plain", "3"])
def test_the_error_names_the_sample_of_the_training_data(tmp_path, value, options):
    with pytest.raises(InvalidSampleError, match=rf"in sample {BAD} of the training data. Fix: "):
        train(tmp_path, images(value), **options)


def test_a_space_that_fits_statistics_names_it_too(tmp_path):
    with pytest.raises(InvalidSampleError, match=f"finite data.* in sample {BAD} of the training"):
        train(tmp_path, images(math.nan), space=Unbounded())


def test_a_sample_of_the_validation_data_is_named(tmp_path):
    with pytest.raises(InvalidSampleError, match=f"in sample {BAD} of the validation data"):
        train(tmp_path, images(0), validation=images(math.nan), train_num_steps=1)


class Exploding(Plain):
    def forward(self, x, time):
        return self.conv(x) * math.inf


def test_good_data_are_not_blamed(tmp_path):
    model = GaussianDiffusion(Exploding(), timesteps=2)
    with pytest.raises(FloatingPointError, match="lower train_lr"):
        Trainer(model, images(0.5), results_folder=tmp_path, train_batch_size=3, **QUIET).train()


def test_a_device_that_encodes_to_nan_is_checked_when_asked():
    """On a GPU, `encode` never waits: an invalid sample becomes NaN, for `check` to find."""
    data = images(2.0)
    x0 = 2 * data - 1
    check_encoded(data, x0)
    x0[BAD] = math.nan
    with pytest.raises(InvalidSampleError, match=rf"got \S+ to 2 in sample {BAD} of the batch"):
        check_encoded(data, x0)
    check_encoded(data.to("meta"), ImageSpace().encode(data.to("meta"), {}))
