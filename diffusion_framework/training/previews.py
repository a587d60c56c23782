"""Previews: a grid of samples from the averaged weights, every so many steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ..data import TrainingDataset
from ..data.loading.loader import to_device
from ..process.noise import sample_seeds
from ..trainable import Trainable
from .checks import expect


@dataclass(frozen=True)
class Previews:
    """When and how the averaged weights draw a grid of `num_samples` images.

    Conditions of the samples come from the validation data, or from the training data if there is
    none; classes take turns.

    Args:
        every: Optimizer steps between two grids, with one more at the last step; None is
            `save_and_sample_every`, 0 draws none.
        sampling_steps: Sampler steps for each image.

    Raises:
        ValueError: a field out of range.
    """

    every: int | None = None
    sampling_steps: int = 50

    def __post_init__(self) -> None:
        fits = self.every is None or self.every >= 0
        expect(fits, "previews.every of at least 0", self.every, "0 switches previews off")
        wanted = "previews.sampling_steps of at least 1"
        fix = "set previews.every to 0 for none"
        expect(self.sampling_steps >= 1, wanted, self.sampling_steps, fix)

    def draw(
        self, model: Trainable, dataset: TrainingDataset, count: int, seed: int, accelerator: Accelerator
    ) -> Tensor | None:
        """Draws samples on all processes together.

        Image i depends on the seed and on i alone, whatever the number of processes.

        Args:
            model: Model to sample from.
            dataset: Dataset whose conditions the model is told.
            count: Number of images.
            seed: Seed for their noise.
            accelerator: The run's accelerator.

        Returns:
            [count, channels, height, width] in [0, 1] on every process, or None for samples that are
            not images.
        """
        share = math.ceil(count / accelerator.num_processes)
        first = accelerator.process_index * share
        own = np.minimum(np.arange(first, first + share), count - 1)
        condition = preview_conditions(dataset, own, count, accelerator.device)
        seeds = sample_seeds(seed, own.tolist())
        with accelerator.autocast():
            images = model.previews(share, seeds=seeds, steps=self.sampling_steps, **condition)
        return None if images is None else accelerator.gather(images)[:count]


def preview_conditions(
    dataset: TrainingDataset, chosen: np.ndarray, count: int, device: torch.device
) -> Mapping[str, Any]:
    """Returns conditions for previews, [batch, ...] by name.

    Classes take turns. Other conditions come from samples that are evenly spread over the dataset,
    or for shards from its first samples.

    Args:
        dataset: Dataset that the conditions come from.
        chosen: Numbers of the previews, [batch], each below count.
        count: Number of previews in all.
        device: Device for the conditions.
    """
    if dataset.class_names:
        labels = torch.from_numpy(chosen % len(dataset.class_names))
        return {"labels": labels.to(device)}
    indices = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    if dataset.shard_lengths is not None:
        indices = np.arange(count) % len(dataset)
    _, condition = to_device(dataset.take(indices[chosen]), device)
    return {name: value for name, value in condition.items() if name != "mask"}
