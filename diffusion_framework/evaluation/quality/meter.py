"""Measures images against reference images, in the features of a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...data import ImageDataset
from ..features.base import FeatureNetwork, features_of, read_images, spread
from .estimate import Estimate
from .frechet import GaussianStatistics
from .neighbours import Nearest, authenticity, nearest
from .report import Quality, measure_quality


class QualityMeter:
    """Measures images against reference images, in the features of a network.

    Attributes:
        network: Network of the features.
        reference: Features of the reference [images, features], or their statistics.
        labels: Labels of the reference, [images]; None without labels.
        training: Features of the training images, [images, features]; None without these.

    Args:
        network: Network of the features.
        reference: Reference images, as a dataset or uint8 [n, channels, height, width]; or the
            statistics of their features.
        training: Images that the models were trained on.
        num_images: Largest number of images of each dataset, evenly spread; None for all.
        batch_size: Number of images in a batch of the network.
        show_progress: Whether to show progress bars.

    Raises:
        ValueError: If images have more than 8 bits, or there are fewer than two.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        reference: ImageDataset | Tensor | GaussianStatistics,
        *,
        training: ImageDataset | None = None,
        num_images: int | None = None,
        batch_size: int = 64,
        show_progress: bool = True,
    ) -> None:
        self.network, self.batch_size, self.show_progress = network, batch_size, show_progress
        self.labels: Tensor | None = None
        self._training_images, self.training = training, None
        if isinstance(reference, GaussianStatistics):
            self.reference: Tensor | GaussianStatistics = reference
        elif isinstance(reference, Tensor):
            self.reference = self.features(reference)
        else:
            self.reference, self.labels = self._dataset_features(
                reference, spread(len(reference), num_images)
            )
        if training is not None:
            self.chosen = spread(len(training), num_images)
            self.training, _ = self._dataset_features(training, self.chosen)

    def features(self, images: Tensor) -> Tensor:
        """Returns features [n, features] of uint8 images [n, channels, height, width]."""
        batches = images.split(self.batch_size)
        return features_of(
            self.network, iter(batches), total=len(batches), show_progress=self.show_progress
        )

    def labels_for(self, count: int, num_classes: int) -> Tensor:
        """Returns labels [count] in the proportions of the reference, or else in equal ones."""
        if self.labels is None:
            return torch.arange(count) % num_classes
        places = (np.arange(count) + 0.5) / count * len(self.labels)
        return self.labels.sort().values[places.astype(int)]

    def measure(
        self, name: str, images: Tensor, labels: Tensor | None = None
    ) -> tuple[Quality, Nearest | None]:
        """Returns the quality of images, and their nearest training images if these are known.

        Args:
            name: Name of the images.
            images: uint8 images [n, channels, height, width].
            labels: Classes asked for, [n]; None without classes.
        """
        features = self.features(images)
        neighbours = None if self.training is None else nearest(features, self.training)
        agreement = self._agreement(features, labels)
        quality = measure_quality(
            name, features, self.reference, training=neighbours, agreement=agreement
        )
        return quality, neighbours

    def real(self, count: int) -> list[Quality]:
        """Returns the quality of real images, the best that a model can reach.

        They are training images, or one half of the reference against the other. With training
        images, a second row has the shares that a model must not fall below: how many of the
        reference are no near-copies, and in how many the classifier sees their label.

        Args:
            count: Largest number of real images, that of the samples.
        """
        if isinstance(self.reference, GaussianStatistics) or len(self.reference) < 20:
            return []
        if self.training is None:
            first, second = self.reference[::2][:count], self.reference[1::2]
            return [measure_quality("half of the images", first, second)]
        some = self.training[spread(len(self.training), count)]
        copies = authenticity(nearest(self.reference, self.training))
        correct = self._agreement(self.reference, self.labels)
        agreement = None if correct is None else Estimate.mean(correct)
        number = len(self.reference)
        return [
            measure_quality("training images", some, self.reference),
            Quality("held-out images", number, authenticity=copies, agreement=agreement),
        ]

    def training_pictures(self, indices: Tensor) -> Tensor:
        """Returns the training images [n, channels, height, width] of indices of `training`."""
        assert self._training_images is not None
        return read_images(self._training_images, self.chosen[indices.numpy()])[0]

    def _agreement(self, features: Tensor, labels: Tensor | None) -> Tensor | None:
        """Returns in which images the classifier sees the label, or None without a classifier."""
        if labels is None or not self.network.class_names:
            return None
        return self.network.classify(features) == labels

    def _dataset_features(
        self, images: ImageDataset, chosen: np.ndarray
    ) -> tuple[Tensor, Tensor | None]:
        labels: list[Tensor] = []

        def batches() -> Iterator[Tensor]:
            for first in range(0, len(chosen), self.batch_size):
                batch, label = read_images(images, chosen[first : first + self.batch_size])
                labels.extend([] if label is None else [label])
                yield batch

        total = -(-len(chosen) // self.batch_size)
        found = features_of(self.network, batches(), total=total, show_progress=self.show_progress)
        return found, torch.cat(labels) if labels else None
