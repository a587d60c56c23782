"""How good a model is on data that it was not trained on, and which checkpoints were best."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import default_collate

from ..checkpoint import Checkpoint, list_checkpoints, step_of
from ..data.loading.loader import to_device
from ..diffusion import GaussianDiffusion
from ..process.noise import keyed_generator, mix


def validate(
    diffusion: GaussianDiffusion, dataset: Any, samples: int, batch_size: int, accelerator: Accelerator, seed: int
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
        take = getattr(dataset, "take", None)
        batch = take(indices) if take else default_collate([dataset[int(i)] for i in indices])
        images, condition = to_device(batch, accelerator.device, flip=None)
        generator = keyed_generator(accelerator.device, mix(seed, first), rank)
        for name, value in diffusion.validation_metrics(images, generator=generator, **condition).items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value * len(indices)
        count += len(indices)
    sums = torch.stack([*totals.values(), torch.tensor(float(count), device=accelerator.device)])
    *means, counted = accelerator.reduce(sums, reduction="sum").tolist()
    return {name: total / counted for name, total in zip(totals, means, strict=True)}


def best_steps(results_folder: Path, metric: str, count: int, step: int, metrics: dict[str, float]) -> list[int]:
    """The steps of the best `count` checkpoints: those on disk, which say it themselves, and the one to be written."""
    values = {step: metrics.get(metric, math.inf)}
    for path in list_checkpoints(results_folder) if count else ():
        if step_of(path) < step:
            try:
                values[step_of(path)] = Checkpoint.open(path).state.get("metrics", {}).get(metric, math.inf)
            except ValueError:  # damaged: not worth keeping
                continue
    finite = {at: value for at, value in values.items() if math.isfinite(value)}  # NaN is never best
    return sorted(finite, key=lambda at: finite[at])[:count]
