"""Measures a model on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ..data import TrainingDataset
from ..data.loading.loader import to_device
from ..process.noise import keyed_generator, mix
from ..spaces.base import InvalidSampleError
from ..trainable import Trainable
from .checks import expect


@dataclass(frozen=True)
class ValidationOptions:
    """Options of the validation, which measures the averaged weights.

    Args:
        every: Number of optimizer steps between two validations, with one more at the last step.
            None is `save_and_sample_every`; 0 switches validation off.
        samples: Number of validation samples to measure, evenly spread over the dataset.

    Raises:
        ValueError: If a field is out of range.
    """

    every: int | None = None
    samples: int = 1000

    def __post_init__(self) -> None:
        fits = self.every is None or self.every >= 0
        wanted = "validation_options.every of at least 0"
        expect(fits, wanted, self.every, "set it to 0 for no validation")
        wanted = "validation_options.samples of at least 1"
        fix = "choose at least 1, or set validation_options.every to 0 for no validation"
        expect(self.samples >= 1, wanted, self.samples, fix)

    def measure(
        self,
        model: Trainable,
        dataset: TrainingDataset,
        batch_size: int,
        seed: int,
        accelerator: Accelerator,
        together: Callable[..., Any],
    ) -> dict[str, float]:
        """Returns the means of the model's metrics over the samples, on all processes together.

        The noise is the same at every validation.

        Args:
            model: Model to measure; it is left in evaluation mode.
            dataset: Validation data.
            batch_size: Number of samples of a batch over all processes.
            seed: Seed of the noise.
            accelerator: Accelerator of the run.
            together: Runs the work of all processes (see `Together`).
        """
        model.eval()
        work = partial(self._totals, model, dataset, batch_size, seed, accelerator)
        totals = together(work)
        sums, counts = accelerator.reduce(totals, reduction="sum").tolist()
        each = zip(model.metric_names, sums, counts, strict=True)
        return {name: total / count if count else math.nan for name, total, count in each}

    def _totals(
        self,
        model: Trainable,
        dataset: TrainingDataset,
        batch_size: int,
        seed: int,
        accelerator: Accelerator,
    ) -> Tensor:
        """Returns sums of the metrics on this process, and numbers of samples, [2, metrics]."""
        length, device = len(dataset), accelerator.device
        world, rank = accelerator.num_processes, accelerator.process_index
        chosen = np.unique(
            np.linspace(0, length - 1, min(self.samples, length)).round().astype(int)
        )
        chosen = chosen[: max(1, len(chosen) // world) * world]
        totals = torch.zeros(2, len(model.metric_names), device=device)
        for first in range(0, len(chosen), batch_size):
            indices = chosen[first : first + batch_size][rank::world]
            if len(indices):
                data, condition = to_device(dataset.take(indices), device)
                generator = keyed_generator(device, mix(seed, first), rank)
                try:
                    metrics = model.validation_metrics(data, generator=generator, **condition)
                except InvalidSampleError as error:
                    index = int(indices[error.index])
                    raise error.counted_in("the validation data", index) from None
                if missing := [name for name in model.metric_names if name not in metrics]:
                    fix = "return one value for each of metric_names"
                    expect(False, f"validation_metrics with {missing[0]}", [*metrics], fix)
                for column, name in enumerate(model.metric_names):
                    value = metrics[name]
                    count = len(value) if value.ndim else len(indices)
                    total = value.sum() if value.ndim else value * count
                    totals[:, column] += torch.stack([total, torch.full_like(total, count)])
        return totals
