"""Noise augmentation of images as a condition."""

from __future__ import annotations

import pytest
import torch
from runs import assert_same_run
from toys import QUIET, Plain

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.conditions import Images


def told(images, conditioner, drop, seed=0):
    generator = torch.Generator().manual_seed(seed)
    encoded = conditioner(images, drop=drop, generator=generator)["image"]
    return encoded[:, :-1], encoded[:, -1:]


def test_training_mixes_images_with_noise_of_the_level_it_tells():
    images, conditioner = torch.rand(4000, 1, 3, 3), Images(1, noise=0.4)
    noised, level = told(images, conditioner, drop=True)
    clean, zero = told(images, conditioner, drop=False)
    assert torch.equal(clean, 2 * images - 1) and not zero.any()
    assert (level == level[:, :, :1, :1]).all(), "one level for an image"
    levels = level[:, 0, 0, 0].sort().values
    uniform = torch.linspace(0, 0.4, len(levels))
    torch.testing.assert_close(levels, uniform, atol=0.4 * 1.6 / 4000**0.5, rtol=0)
    eps = (noised - (1 - level**2).sqrt() * clean) / level
    assert abs(eps.mean()) < 0.03 and abs(eps.var() - 1) < 0.04
    assert abs((eps * clean).mean()) < 0.03, "independent of the image"
    torch.testing.assert_close(told(images, conditioner, drop=True)[0], noised, rtol=0, atol=0)
    assert not torch.equal(told(images, conditioner, drop=True, seed=1)[0], noised)


def test_sampling_takes_one_level_and_the_same_noise_for_each_image():
    images, conditioner = torch.rand(5, 1, 3, 3), Images(1, noise=0.4, sampling_noise=0.2)
    noised, level = told(images, conditioner, drop=False)
    assert (level == torch.tensor(0.2)).all()
    eps = (noised - 0.96**0.5 * (2 * images - 1)) / 0.2
    torch.testing.assert_close(eps, eps[:1].expand_as(eps))
    assert torch.equal(told(images[3:4], conditioner, drop=False)[0], noised[3:4])


def test_none_has_the_shape_of_a_noised_image_and_noise_comes_before_dropout():
    conditioner = Images(2, noise=0.4, dropout=0.5)
    conditioner.build((1, 4, 4))
    encoded = conditioner(torch.rand(200, 2, 4, 4), drop=True)["image"]
    assert conditioner.none(200)["image"].shape == encoded.shape == (200, 3, 4, 4)
    dropped = (encoded == 0).flatten(1).all(1)
    assert 60 < int(dropped.sum()) < 140 and (encoded[~dropped, -1] > 0).all()


def test_without_noise_no_random_number_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert Images(1)(torch.rand(2, 1, 3, 3), drop=True, generator=generator)["image"].shape[1] == 1
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 1.0}, r"noise in \[0, 1\), got 1.0"),
        ({"noise": -0.1}, r"noise in \[0, 1\), got -0.1"),
        ({"noise": 0.1, "sampling_noise": 0.2}, r"sampling_noise in \[0, 0.1\], got 0.2"),
        ({"sampling_noise": 0.2}, r"sampling_noise in \[0, 0.0\], got 0.2"),
    ],
)
def test_levels_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message + ".* Fix: "):
        Images(**options)


class Told(Plain):
    def forward(self, x, time, image):
        return self.conv(x + image[:, :1]) * (1 + image[:, 1:])


def test_a_resumed_run_repeats_the_noise(tmp_path):
    torch.manual_seed(0)
    data = [(torch.rand(1, 4, 4), {"image": torch.rand(1, 2, 2)}) for _ in range(8)]

    def run(folder, steps):
        torch.manual_seed(0)
        model = GaussianDiffusion(Told(), conditions={"image": Images(1, noise=0.5)}, timesteps=2)
        options = {"train_batch_size": 4, "num_samples": 2, "save_and_sample_every": 2, **QUIET}
        return Trainer(model, data, results_folder=folder, train_num_steps=steps, **options)

    run(tmp_path / "whole", 4).train()
    run(tmp_path / "cut", 2).train()
    with pytest.warns(UserWarning, match="train_num_steps"):
        run(tmp_path / "cut", 4).train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
