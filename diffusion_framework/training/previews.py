"""Draws previews: grids of samples from the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from ..data import TrainingDataset
from ..data.loading.loader import to_device
from ..process.noise import sample_seeds
from ..storage.labelled import split_views
from ..trainable import Trainable
from .checks import expect


@dataclass(frozen=True)
class Previews:
    """Options of the previews, grids of `num_samples` images drawn by the averaged weights.

    Conditions of the samples come from the validation data, or from the training data if no
    validation data is given. Classes take turns.

    Args:
        every: Number of optimizer steps between two previews, with one more at the last step. None
            is `save_and_sample_every`; 0 draws none.
        sampling_steps: Number of sampler steps for each image of a preview. None is the default of
            the model, such as 20, and at most 50.

    Raises:
        ValueError: If a field is out of range.
    """

    every: int | None = None
    sampling_steps: int | None = None

    def __post_init__(self) -> None:
        fits = self.every is None or self.every >= 0
        expect(fits, "previews.every of at least 0", self.every, "set it to 0 for no previews")
        steps, wanted = self.sampling_steps, "previews.sampling_steps of at least 1"
        fix = "choose at least 1, or set previews.every to 0 for no previews"
        expect(steps is None or steps >= 1, wanted, steps, fix)

    def path(self, folder: Path, step: int) -> Path:
        """Returns the path of the preview after a step, in the results folder."""
        return folder / "samples" / f"step-{step:08d}.png"

    def undone(self, tasks: Collection[str], path: Path) -> set[str]:
        """Returns tasks without the preview if the main process finds its image at a path."""
        (drawn,) = broadcast_object_list([path.exists()])
        return set(tasks) - ({"preview"} if drawn else set())

    def draw(
        self,
        model: Trainable,
        dataset: TrainingDataset,
        count: int,
        seed: int,
        accelerator: Accelerator,
        together: Callable[..., Any],
    ) -> Tensor | None:
        """Draws samples on all processes together.

        The noise of image i depends only on the seed and i, not on the number of processes.

        Args:
            model: Model to sample from.
            dataset: Dataset that provides the conditions.
            count: Number of images.
            seed: Seed of the noise.
            accelerator: Accelerator of the run.
            together: Runs the work of all processes (see `Together`).

        Returns:
            Images [count, channels, height, width] in [0, 1] on every process, or None if the
            samples are not images.
        """
        share = math.ceil(count / accelerator.num_processes)
        first = accelerator.process_index * share
        own = np.minimum(np.arange(first, first + share), count - 1)
        seeds = sample_seeds(seed, own.tolist())

        def sample() -> Tensor | None:
            condition = preview_conditions(dataset, own, count, accelerator.device)
            with accelerator.autocast():
                return model.previews(share, seeds=seeds, steps=self.sampling_steps, **condition)

        images = together(sample)
        return None if images is None else accelerator.gather(images)[:count]


@dataclass(frozen=True, eq=False)
class Asked:
    """What the samples of a preview were asked for, as users see it.

    Args:
        texts: A text for each sample, or None.
        beside: Images of conditions [count, channels, height, width] in [0, 1].
    """

    texts: list[str] | None = None
    beside: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, model: Trainable, dataset: TrainingDataset, count: int) -> Asked:
        """Returns the conditions that `Previews.draw` takes for the samples of all processes.

        Args:
            model: Model that the samples come from.
            dataset: Dataset that provides the conditions.
            count: Number of samples.
        """
        condition = preview_conditions(dataset, np.arange(count), count, model.device)
        views = dict(model.views(condition))
        if "labels" in views and dataset.class_names:
            names = dataset.class_names
            views["labels"] = [names[int(label)] for label in condition["labels"]]
        return cls(*split_views(views))


def preview_conditions(
    dataset: TrainingDataset, chosen: np.ndarray, count: int, device: torch.device
) -> Mapping[str, Any]:
    """Returns conditions for previews, [batch, ...] by name.

    Classes take turns. Other conditions come from samples of these classes where the labels are
    known, else from samples evenly spread over the dataset, or from the first samples of shards.

    Args:
        dataset: Dataset that the conditions come from.
        chosen: Indices of the previews [batch], each below count.
        count: Total number of previews.
        device: Device of the conditions.
    """
    classes, labels = len(dataset.class_names or ()), {}
    if classes:
        labels = {"labels": torch.from_numpy(chosen % classes).to(device)}
        _, first = to_device(dataset.take(np.zeros(1, int)), device)
        if first.keys() <= {"labels", "mask"}:
            return labels
    known = dataset.class_labels()
    indices = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    if dataset.shard_lengths is not None:
        indices = np.arange(count) % len(dataset)
    elif classes and known is not None:
        indices, labels = _in_turn(known, indices, classes), {}
    _, condition = to_device(dataset.take(indices[chosen]), device)
    return {name: value for name, value in condition.items() if name != "mask"} | labels


def _in_turn(known: np.ndarray, indices: np.ndarray, classes: int) -> np.ndarray:
    """Returns samples whose classes take turns, each class evenly spread over its samples.

    Args:
        known: Class of each sample of the dataset.
        indices: Samples that take the place of those of an empty class.
        classes: Number of classes.
    """
    found, turns = indices.copy(), np.arange(len(indices))
    for label in range(classes):
        members, places = np.flatnonzero(known == label), turns[turns % classes == label]
        if len(members) and len(places):
            spread = np.linspace(0, len(members) - 1, len(places)).round().astype(int)
            found[places] = members[spread]
    return found
