"""Measures the quality of samples of trained models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from ..data import ImageDataset
from ..denoisers import Guidance
from ..diffusion import GaussianDiffusion
from ..evaluation.features import FeatureExtractor, Own
from ..evaluation.features.base import local_file
from ..evaluation.quality import (
    GaussianStatistics,
    Quality,
    QualityMeter,
    draw_images,
    load_samples,
    quality_table,
    save_nearest,
    save_samples,
    write_quality,
)
from ..evaluation.quality.conditions import conditions_of
from ..samplers import Sampler
from ..storage.config import to_config
from ..training.environment import environment


@dataclass(frozen=True)
class Measurement:
    """A measurement of the quality of several runs.

    Args:
        data: Plan of the held-out images; None with `reference`.
        training_data: Plan of the training images, or None.
        features: Plan of the feature extractor; None for features of the images' own.
        samplers: Plans of the samplers to compare; None for each model's own.
        reference: File of statistics or samples in place of data.
        num_images: Largest number of images of each dataset.
        device: Device of the networks.
        batch_size: Number of images in a batch.
        seed: Seed of the samples.
        progress: Whether to show progress bars.
        num_samples: Number of samples.
        calls: Numbers of network calls to compare; None for the number that suits the sampler.
        guidance: Guidance, or its scale.
    """

    data: Any
    training_data: Any
    features: Any
    samplers: Any
    reference: str | None
    num_images: int | None
    device: torch.device
    batch_size: int
    seed: int
    progress: bool
    num_samples: int
    calls: Sequence[int] | None
    guidance: float | Guidance

    def run(
        self,
        runs: Mapping[str, str],
        opened: Callable[[str], GaussianDiffusion],
        folder: Path,
        keep_samples: bool,
    ) -> None:
        """Measures runs by name; prints a table and writes it with pictures to a folder.

        Args:
            runs: Results folders, checkpoints or npz files of samples, by name.
            opened: Function that opens the run of a name.
            folder: Folder for the results.
            keep_samples: Whether to write samples and statistics too.
        """
        reference = None if self.reference is None else _read_reference(self.reference)
        samplers = [plan.build() for plan in self.samplers or ()]
        extractor: FeatureExtractor = Own() if self.features is None else self.features.build()
        models = {n: opened(n) for n, path in runs.items() if not path.endswith(".npz")}
        files = {
            n: load_samples(local_file(path, "RUNS"))
            for n, path in runs.items()
            if path.endswith(".npz")
        }
        channels, size = _shape([*models.values()], [*files.values()])
        given = {"image_size": size, "channels": channels}
        data, training = (
            None if plan is None else plan.build(**given)
            for plan in (self.data, self.training_data)
        )
        for dataset, flag in ((data, "--data"), (training, "--training_data")):
            _check_classes(models, dataset, flag)
        meter = self._meter(extractor, data, training, reference)
        rows, facts = [], self._facts(extractor)
        for name, images, labels in self._all_samples(models, files, samplers, meter, data):
            if not PartialState().is_main_process:
                continue
            rows.append(_measure(meter, name, images, labels, folder, keep_samples))
            write_quality(rows, facts, folder / "quality.json")  # an error later loses nothing
        if PartialState().is_main_process:
            if keep_samples and not isinstance(meter.reference, GaussianStatistics):
                GaussianStatistics.of(meter.reference).save(folder / "reference.npz")
            rows += meter.real(self.num_samples)
            write_quality(rows, facts, folder / "quality.json")
            print(quality_table(rows))
            print(f"features {extractor.name}: {extractor.comparable}; ± are 95 % intervals")
            print(f"done: quality.json in {folder}")

    def _meter(
        self,
        extractor: FeatureExtractor,
        data: ImageDataset | None,
        training: ImageDataset | None,
        reference: Tensor | GaussianStatistics | None,
    ) -> QualityMeter:
        source = data if training is None else training
        with PartialState().main_process_first():  # the others find trained features in the cache
            network = extractor.network(source, self.device, show_progress=self.progress)
        against: Any = data if reference is None else reference
        return QualityMeter(
            network,
            against,
            training=training,
            num_images=self.num_images,
            batch_size=self.batch_size,
            show_progress=self.progress,
        )

    def _all_samples(
        self,
        models: Mapping[str, GaussianDiffusion],
        files: Mapping[str, Tensor],
        samplers: Sequence[Sampler],
        meter: QualityMeter,
        data: ImageDataset | None,
    ) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Yields names, images and labels of all samples to measure."""
        for name, images in files.items():
            yield name, images, None
        for name, model in models.items():
            conditions = self._conditions(model, data, meter)
            labels = conditions.get("labels")
            budgets: Sequence[int | None] = self.calls or [None]
            for index, sampler in enumerate(samplers or [model.sampler]):
                kind = type(sampler).__name__
                same = [type(other) for other in samplers].count(type(sampler)) > 1
                for calls in budgets:
                    count = sampler.default_calls if calls is None else calls
                    shown = f"{name} {kind}{index + 1 if same else ''} {count or ''}".rstrip()
                    options: dict[str, Any] = {"sampler": sampler, "calls": calls, "name": shown}
                    options["guidance"] = self.guidance
                    options |= {"batch_size": self.batch_size, "seed": self.seed}
                    options |= {"conditions": conditions, "show_progress": self.progress}
                    yield shown, draw_images(model, self.num_samples, **options), labels

    def _conditions(
        self, model: GaussianDiffusion, data: ImageDataset | None, meter: QualityMeter
    ) -> dict[str, Any]:
        """Returns the conditions of all samples: those of held-out images, or else all classes."""
        names = [*model.conditions]
        found = {} if data is None else conditions_of(data, self.num_samples, names)
        if model.num_classes is not None and not found.keys() - {"labels"}:
            found["labels"] = meter.labels_for(self.num_samples, model.num_classes)
        return found

    def _facts(self, extractor: FeatureExtractor) -> dict[str, Any]:
        """Returns what the results depend on, for their file."""
        return {
            "features": to_config(extractor),
            "comparable": extractor.comparable,
            "num_samples": self.num_samples,
            "seed": self.seed,
            "guidance": to_config(self.guidance),
            "device": str(self.device),
            **environment(),
        }


def _measure(
    meter: QualityMeter,
    name: str,
    images: Tensor,
    labels: Tensor | None,
    folder: Path,
    keep_samples: bool,
) -> Quality:
    """Returns the quality of samples; draws their nearest training images, and writes them."""
    quality, neighbours = meter.measure(name, images, labels)
    place = folder / name.replace(" ", "-")
    if neighbours is not None:
        path = Path(f"{place}-nearest.png")
        save_nearest(images, meter.training_pictures, neighbours, path)
    if keep_samples:
        save_samples(images, Path(f"{place}.npz"), labels)
    return quality


def _check_classes(
    models: Mapping[str, GaussianDiffusion], dataset: ImageDataset | None, flag: str
) -> None:
    """Raises ValueError if labels of a dataset mean other classes than those of a model."""
    theirs = [] if dataset is None else list(dataset.class_names)
    for name, model in models.items():
        own = list(model.class_names)
        if theirs and own and model.num_classes is not None and own != theirs:
            raise ValueError(
                f"{flag}: expected the classes of {name}, {', '.join(own):.100}, got "
                f"{', '.join(theirs):.100}. Fix: use the same folders, or leave labels out."
            )


def _shape(
    models: Sequence[GaussianDiffusion], files: Sequence[Tensor]
) -> tuple[int, tuple[int, int]]:
    """Returns the channels and the size of all images.

    Raises:
        ValueError: If they differ, or are no images.
    """
    shapes = {tuple(model.sample_shape) for model in models}
    shapes |= {tuple(images.shape[1:]) for images in files}
    if len(shapes) > 1:
        raise ValueError(
            f"RUNS: expected images of one shape, got {', '.join(map(str, sorted(shapes)))}. "
            "Fix: measure them one after the other."
        )
    (shape,) = shapes
    if len(shape) != 3:
        raise ValueError(
            f"RUNS: expected models of images, got samples of shape {shape}. "
            "Fix: use --likelihood, or `diffusion rollout` for a policy."
        )
    channels, height, width = shape
    return channels, (height, width)


def _read_reference(path: str) -> Tensor | GaussianStatistics:
    """Returns the statistics or the images of an npz file."""
    local_file(path, "--reference")
    try:
        return GaussianStatistics.load(path)
    except ValueError:
        return load_samples(path)
