"""Flips move an image, its conditions, its mask and its latents alike, or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import QUIET, Plain

from diffusion_framework import DiffusionPolicy, GaussianDiffusion, Trainer
from diffusion_framework.conditions import Images, Labels, Vectors
from diffusion_framework.spaces import ImageSpace, LatentSpace, Unbounded

WHERE = torch.tensor([True, False, True])
IMAGES = torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4)


class ToldByImage(Plain):
    def forward(self, x, time, image):
        return self.conv(x)


class ToldByBoth(Plain):
    def forward(self, x, time, image, labels):
        return self.conv(x)


class ToldByVector(Plain):
    def forward(self, x, time, vector):
        return self.conv(x)


def expected(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[0].flip(-1), x[1], x[2].flip(-1)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float64])
def test_an_image_its_conditions_and_its_mask_move_alike(dtype):
    conditions = {"sketch": Images(1, keyword="image"), "labels": Labels(3)}
    model = GaussianDiffusion(ToldByBoth(), conditions=conditions)
    images = IMAGES.to(dtype)
    mask = IMAGES % 3 == 0
    given = {"sketch": 255 - IMAGES, "labels": torch.arange(3), "mask": mask}
    data, told = model.flip(images, given, WHERE)
    assert data.dtype == dtype and torch.equal(data.long(), expected(IMAGES).long())
    assert torch.equal(told["sketch"], expected(255 - IMAGES))
    assert torch.equal(told["mask"], expected(mask))
    assert torch.equal(told["labels"], torch.arange(3))


def test_a_mask_without_columns_stays():
    for mask in (torch.ones(3, dtype=torch.bool), torch.rand(3, 1) < 0.5):
        _, told = GaussianDiffusion(Plain()).flip(IMAGES, {"mask": mask}, WHERE)
        assert told["mask"] is mask


@pytest.mark.parametrize(
    ("model", "data", "told"),
    [
        (
            lambda: GaussianDiffusion(ToldByVector(), conditions={"pose": Vectors(2)}),
            IMAGES,
            {"pose": torch.rand(3, 2)},
        ),
        (lambda: GaussianDiffusion(Plain(), space=Unbounded()), torch.randn(3, 1, 4, 4), {}),
        (lambda: GaussianDiffusion(Plain(), sample_shape=(4, 2)), torch.rand(3, 4, 2), {}),
        (lambda: DiffusionPolicy(Plain(), sample_shape=(4, 2)), torch.rand(3, 4, 2), {}),
    ],
    ids=["condition that cannot follow", "physical field", "sequence", "actions"],
)
def test_what_cannot_be_flipped_as_a_whole_is_not_flipped(model, data, told):
    same, same_told = model().flip(data, told, WHERE)
    assert same is data and same_told is told


class Slanted(nn.Module):
    """An autoencoder whose latents of a mirrored image are not the mirrored latents."""

    def encode(self, images):
        return images.cumsum(-1)

    def decode(self, latents):
        return latents.diff(dim=-1, prepend=torch.zeros_like(latents[..., :1]))


def test_latents_are_those_of_the_flipped_image():
    space = LatentSpace(Slanted(), Unbounded(0, 1))
    model = GaussianDiffusion(Plain(), space=space)
    images = torch.rand(3, 1, 4, 4)
    flipped, _ = model.flip(images, {}, WHERE)
    latents = model.encode(flipped, {})
    assert torch.equal(latents, model.encode(expected(images), {}))
    assert (latents[0] - model.encode(images, {})[0].flip(-1)).abs().max() > 0.1


def test_training_flips_half_of_the_pairs(tmp_path, monkeypatch):
    pairs = [(image, {"sketch": 255 - image}) for image in IMAGES.repeat(6, 1, 1, 1)]
    model = GaussianDiffusion(
        ToldByImage(), conditions={"sketch": Images(1, keyword="image")}, timesteps=2
    )
    seen = []
    encode = ImageSpace.encode
    monkeypatch.setattr(
        ImageSpace, "encode", lambda self, data, told: seen.append(data) or encode(self, data, told)
    )
    run = Trainer(
        model,
        pairs,
        results_folder=tmp_path,
        train_num_steps=20,
        train_batch_size=16,
        save_and_sample_every=100,
        num_samples=1,
        **QUIET,
    )
    seen.clear()
    run.train()
    batches = [data for data in seen if len(data) == 16]
    assert len(batches) == 40, "data and sketches of 20 steps"
    assert all(torch.equal(a, 255 - b) for a, b in zip(batches[::2], batches[1::2], strict=True))
    data = torch.cat(batches[::2])
    rising = (data.float().diff(dim=-1) > 0).flatten(1).all(1)
    assert abs(rising.float().mean() - 0.5) < 5 * 0.5 / len(data) ** 0.5
