"""Measures the quality of samples during training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from ..data import ImageDataset, TrainingDataset
from ..evaluation.features import FeatureExtractor, Own
from ..evaluation.quality import QualityMeter, frechet_distance, kernel_distance
from ..process.noise import mix
from ..trainable import Trainable
from .checks import expect
from .previews import Previews
from .seeds import Purpose

_BATCH = 64  # samples that a process draws together


@dataclass(frozen=True)
class SampleQuality:
    """Options of the quality of samples, which is measured at each validation.

    Its metrics, `frechet` and `kernel`, are distances of samples to the validation images. They
    are columns of `validation.csv`, and `saving.best_metric` can be one of them.

    Args:
        samples: Number of samples to draw, such as 500; 0 measures nothing.
        features: Features in which images are compared. Own ones are trained on the training
            images at the first validation, for one to three minutes on a CPU.

    Raises:
        ValueError: If `samples` is negative, or too few to compare.
    """

    samples: int = 0
    features: FeatureExtractor = field(default_factory=Own)

    def __post_init__(self) -> None:
        fits = self.samples == 0 or self.samples >= 10
        expect(fits, "quality.samples of 0, or at least 10", self.samples, "try 500, or 0 for none")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics; empty if nothing is measured."""
        return ("frechet", "kernel") if self.samples else ()

    def check(self, training: Any, validation: Any) -> None:
        """Raises ValueError unless both datasets are of images, if anything is measured."""
        fix = "give datasets of images for training and validation, or set quality.samples to 0"
        for name, dataset in (("training", training), ("validation", validation)):
            fits = not self.samples or (isinstance(dataset, ImageDataset) and dataset.bits == 8)
            wanted = f"{name} images of 8 bits where quality.samples is set"
            expect(fits, wanted, "none" if dataset is None else type(dataset).__name__, fix)


class QualityInTraining:
    """Measures samples of a model, against one reference for the whole run.

    Args:
        options: Options of the measurement.
        training: Training images.
        validation: Validation images, the reference.
        previews: Options of sampling.
        seed: Seed of the run; the samples are the same at each validation.
    """

    def __init__(
        self,
        options: SampleQuality,
        training: Any,
        validation: Any,
        previews: Previews,
        seed: int,
    ) -> None:
        options.check(training, validation)
        self.options, self.training, self.validation = options, training, validation
        self.previews, self.seed = previews, mix(seed, Purpose.SAMPLE)
        self._meter: QualityMeter | None = None

    def measure(
        self,
        model: Trainable,
        conditions: TrainingDataset,
        accelerator: Accelerator,
        together: Callable[..., Any],
    ) -> dict[str, float]:
        """Returns the metrics by name, equal on all processes.

        Args:
            model: Model to sample from.
            conditions: Dataset that provides conditions.
            accelerator: Accelerator of the run.
            together: Runs the work of all processes (see `Together`).
        """
        if not self.options.samples:
            return {}
        images, size = [], _BATCH * accelerator.num_processes
        for first in range(0, self.options.samples, size):
            count = min(size, self.options.samples - first)
            options = conditions, count, mix(self.seed, first), accelerator, together
            drawn = self.previews.draw(model, *options)
            if drawn is None:
                fix = "set quality.samples to 0"
                expect(False, "a model of images where quality.samples is set", "another", fix)
            else:
                images.append((drawn * 255).round().to(torch.uint8).cpu())

        def distances() -> dict[str, float]:
            return self._distances(images, accelerator.device)

        found = [together(distances if accelerator.is_main_process else dict)]
        return broadcast_object_list(found)[0]

    def _distances(self, images: list[Tensor], device: torch.device) -> dict[str, float]:
        if self._meter is None:
            network = self.options.features.network(self.training, device, show_progress=False)
            self._meter = QualityMeter(network, self.validation, show_progress=False)
        features, reference = self._meter.features(torch.cat(images)), self._meter.reference
        assert isinstance(reference, Tensor)  # the features of a dataset
        return {
            "frechet": frechet_distance(features, reference),
            "kernel": kernel_distance(features, reference).value,
        }
