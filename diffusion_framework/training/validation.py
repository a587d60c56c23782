"""How good a model is on data that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from ..data import TrainingDataset
from ..data.loading.loader import to_device
from ..diffusion import GaussianDiffusion
from ..process.noise import keyed_generator, mix
from .checks import expect


@dataclass(frozen=True)
class ValidationOptions:
    """When and on how much of the validation data the averaged weights are measured.

    Args:
        every: Optimizer steps between two measurements, with one more at the last step; None is
            `save_and_sample_every`, 0 measures never.
        samples: Number of samples that are measured, evenly spread over the validation data.

    Raises:
        ValueError: a field out of range.
    """

    every: int | None = None
    samples: int = 1000

    def __post_init__(self) -> None:
        fits = self.every is None or self.every >= 0
        wanted = "validation_options.every of at least 0"
        expect(fits, wanted, self.every, "0 switches validation off")
        wanted = "validation_options.samples of at least 1"
        expect(self.samples >= 1, wanted, self.samples, "set validation_options.every to 0 for none")


def validate(
    diffusion: GaussianDiffusion,
    dataset: TrainingDataset,
    samples: int,
    batch_size: int,
    accelerator: Accelerator,
    seed: int,
) -> dict[str, float]:
    """Means of `diffusion.validation_metrics` over evenly spread samples, with the same noise every time.

    All processes take their share and get the same result.
    """
    diffusion.eval()
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(samples, len(dataset))).round().astype(int))
    world, rank = accelerator.num_processes, accelerator.process_index
    chosen = chosen[: max(1, len(chosen) // world) * world]
    totals: dict[str, torch.Tensor] = {}
    count = 0
    for first in range(0, len(chosen), batch_size):
        indices = chosen[first : first + batch_size][rank::world]
        if not len(indices):
            continue
        images, condition = to_device(dataset.take(indices), accelerator.device, flip=None)
        generator = keyed_generator(accelerator.device, mix(seed, first), rank)
        for name, value in diffusion.validation_metrics(images, generator=generator, **condition).items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value * len(indices)
        count += len(indices)
    sums = torch.stack([*totals.values(), torch.tensor(float(count), device=accelerator.device)])
    *means, counted = accelerator.reduce(sums, reduction="sum").tolist()
    return {name: total / counted for name, total in zip(totals, means, strict=True)}
