"""Grids of samples from a model in training."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..diffusion import GaussianDiffusion
from ..process.noise import sample_seeds


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
        images = diffusion.sample(share, steps=steps, seed=sample_seeds(seed, indices), show_progress=False, **condition)
    return accelerator.gather(images)[:count]
