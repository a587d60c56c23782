"""The labels, texts and vectors that belong to images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .texts import Texts


@dataclass(frozen=True, eq=False)
class Values:
    """Conditions of images that are no images themselves, by the index of the image.

    Args:
        labels: Class of each image, integers [images], or None.
        texts: Text of each image, or None.
        vectors: Vector of each image, float32 [images, dim], or None.
    """

    labels: np.ndarray | None = None
    texts: Texts | None = None
    vectors: np.ndarray | None = None

    def at(self, index: int) -> dict[str, Any]:
        """Returns the values of one image by name: `labels`, `text` and `vector`."""
        found: dict[str, Any] = {}
        if self.labels is not None:
            found["labels"] = int(self.labels[index])
        if self.texts is not None:
            found["text"] = self.texts[index]
        if self.vectors is not None:
            found["vector"] = torch.from_numpy(self.vectors[index].copy())
        return found

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Returns the values of several images by name: tensors, and a list of texts."""
        found: dict[str, Any] = {}
        if self.labels is not None:
            found["labels"] = torch.from_numpy(self.labels[indices].astype(np.int64))
        if self.texts is not None:
            found["text"] = [self.texts[int(index)] for index in indices]
        if self.vectors is not None:
            found["vector"] = torch.from_numpy(self.vectors[indices])
        return found

    def subset(self, indices: np.ndarray) -> Values:
        """Returns the values of some images, in this order."""
        return Values(
            None if self.labels is None else self.labels[indices],
            None if self.texts is None else self.texts.chosen(indices),
            None if self.vectors is None else self.vectors[indices],
        )

    def is_empty(self) -> bool:
        """Returns whether there are no values at all."""
        return self.labels is None and self.texts is None and self.vectors is None

    def digest(self) -> str:
        """Returns a hash of all values."""
        digest = hashlib.sha256()
        if self.labels is not None:
            digest.update(b"labels" + self.labels.astype("<i4").tobytes())
        for text in self.texts or ():
            digest.update(b"text" + text.encode("utf-8", "surrogatepass") + b"\0")
        if self.vectors is not None:
            digest.update(b"vectors" + self.vectors.astype("<f4").tobytes())
        return digest.hexdigest()

    def describe(self) -> str:
        """Returns what the images have besides labels, for the summary, beginning with a comma."""
        texts = "" if self.texts is None else ", texts"
        return texts + ("" if self.vectors is None else f", vectors of {self.vectors.shape[1]}")


def as_sample(image: Tensor, values: Mapping[str, Any]) -> Any:
    """Returns an image alone, with its label alone, or with its conditions by name."""
    if not values:
        return image
    return image, values["labels"] if values.keys() == {"labels"} else dict(values)


def as_batch(images: Tensor, values: Mapping[str, Any]) -> list[Any]:
    """Returns a batch as `collate` returns it: [images], or with labels or conditions by name."""
    if not values:
        return [images]
    return [images, values["labels"] if values.keys() == {"labels"} else dict(values)]
