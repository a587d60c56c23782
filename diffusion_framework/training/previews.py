"""Grids of samples from a model in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..diffusion import GaussianDiffusion
from ..process.noise import sample_seeds
from .checks import expect


@dataclass(frozen=True)
class Previews:
    """When and how the averaged weights draw a grid of `num_samples` images.

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
        expect(self.sampling_steps >= 1, wanted, self.sampling_steps, "set previews.every to 0 for none")


def sample_previews(
    diffusion: GaussianDiffusion, accelerator: Accelerator, count: int, steps: int, seed: int
) -> Tensor:
    """`count` samples [count, channels, height, width] in [0, 1], made on all processes together and given to each.

    Image i has the same noise whenever it is drawn, and with any number of processes. With classes, it is of class i
    modulo their number.
    """
    share = math.ceil(count / accelerator.num_processes)
    indices = [min(accelerator.process_index * share + i, count - 1) for i in range(share)]
    condition: dict[str, Any] = {}
    if classes := getattr(diffusion.model, "num_classes", None):
        condition["labels"] = torch.tensor([i % classes for i in indices], device=accelerator.device)
    with accelerator.autocast():
        images = diffusion.sample(
            share, steps=steps, seed=sample_seeds(seed, indices), show_progress=False, **condition
        )
    return accelerator.gather(images)[:count]
