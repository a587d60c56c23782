"""Previews show what their samples were asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from grey_images import save
from PIL import Image
from toys import QUIET, Plain

from diffusion_framework import GaussianDiffusion, ImageFolder, Trainer
from diffusion_framework.conditions import Images, Labels, Vectors
from diffusion_framework.data import TrainingDataset
from diffusion_framework.training import Previews
from diffusion_framework.training.previews import Asked, preview_conditions


class Told(Plain):
    def forward(self, x, time, labels, image, vector):
        return self.conv(x + image) + labels.sum() + vector.sum()


class Posed(TrainingDataset):
    """Images of the classes 0, 0, 0, 1, 1, 2, each with its index as its other conditions."""

    class_names = ("cat", "dog", "cow")
    known = np.array([0, 0, 0, 1, 1, 2])

    def __len__(self):
        return 6

    def draw(self, index, epoch):
        told = {"image": torch.full((1, 2, 2), index / 5), "vector": torch.tensor([float(index)])}
        return torch.zeros(1, 4, 4), {"labels": int(self.known[index]), **told}

    def class_labels(self):
        return self.known

    def fingerprint(self):
        return ""


def model():
    conditions = {"labels": Labels(3), "image": Images(1), "vector": Vectors(1)}
    return GaussianDiffusion(Told(), conditions=conditions, timesteps=2)


def test_classes_take_turns_with_the_conditions_of_their_samples():
    told = preview_conditions(Posed(), np.arange(7), 7, torch.device("cpu"))
    assert told["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert told["vector"].flatten().tolist() == [0, 3, 5, 1, 4, 5, 2]
    part = preview_conditions(Posed(), np.array([3, 4]), 7, torch.device("cpu"))
    assert part["vector"].flatten().tolist() == [1, 4]


def test_what_was_asked_for_is_told_by_names_and_pictures():
    asked = Asked.of(model(), Posed(), 4)
    assert asked.texts == ["cat, 0", "dog, 3", "cow, 5", "cat, 2"]
    (image,) = asked.beside
    assert image[:, 0, 0, 0].tolist() == pytest.approx([0, 0.6, 1, 0.4])
    assert Asked.of(GaussianDiffusion(Plain(), timesteps=2), Posed(), 4).texts is None


def test_previews_hold_the_pictures_that_were_asked_for(tmp_path):
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", 60 * i)
    data = ImageFolder(tmp_path / "images", 4, 1, low_resolution=2)
    network = GaussianDiffusion(OnImages(), conditions={"image": Images(1)}, timesteps=2)
    options = {"train_batch_size": 4, "num_samples": 4, "save_and_sample_every": 1, **QUIET}
    options["previews"] = Previews(sampling_steps=2)
    Trainer(network, data, results_folder=tmp_path / "run", train_num_steps=1, **options).train()
    shown = np.asarray(Image.open(tmp_path / "run" / "samples" / "step-00000001.png"))
    assert shown.ndim == 3
    found = [set(shown[:, column, 0].tolist()) for column in range(shown.shape[1])]
    assert all(any(60 * i in values for values in found) for i in range(4))


class OnImages(Plain):
    def forward(self, x, time, image):
        return self.conv(x + image)
