"""Conditions that the user of a command asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.images.decode import decode_image
from ..data.images.resize import to_tensor
from ..diffusion import GaussianDiffusion
from ..storage.labelled import split_views
from .classes import chosen_classes


@dataclass(frozen=True)
class Asked:
    """Conditions of all samples, each with a value for every sample.

    Attributes:
        values: Values by the name of their condition, one for each sample.
        columns: Number of columns of a grid whose rows or columns have one condition, or None.
        note: Names of the rows and columns, for the last line of the command.
    """

    values: dict[str, Sequence[Any]] = field(default_factory=dict)
    columns: int | None = None
    note: str = ""

    def of(self, indices: range, device: torch.device) -> dict[str, Any]:
        """Returns the values of some samples, as keyword arguments of `sample`."""
        found: dict[str, Any] = {}
        for name, values in self.values.items():
            chosen = [values[i] for i in indices]
            plain = name == "text"
            found[name] = chosen if plain else _stacked(name, chosen).to(device)
        return found

    def views(
        self, diffusion: GaussianDiffusion, count: int
    ) -> tuple[list[str] | None, tuple[Tensor, ...]]:
        """Returns texts and images to show with the first samples; classes alone need none.

        Args:
            diffusion: Model.
            count: Number of samples to show.
        """
        if self.values.keys() <= {"labels"}:
            return None, ()
        values = self.of(range(count), diffusion.device)
        views = dict(diffusion.views(values))
        if "labels" in views and diffusion.class_names:
            views["labels"] = [diffusion.class_names[int(label)] for label in values["labels"]]
        return split_views(views)


def asked_conditions(
    diffusion: GaussianDiffusion,
    count: int,
    labels: Sequence[int | str] | None,
    text: Sequence[str] | None,
    image: str | None,
    vector: Sequence[float] | None,
) -> Asked:
    """Returns the conditions of `count` samples.

    Each text is a row of the grid, each class a column. Images are taken in turn. What is left out
    is "none"; but without any condition, a model with classes shows all of them.

    Args:
        diffusion: Model.
        count: Number of samples.
        labels: Names or numbers of classes, or None.
        text: Texts, or None.
        image: Path of an image, or of a folder of images, or None.
        vector: One vector for all samples, or None.

    Raises:
        ValueError: If the model has no such condition, or a value does not fit.
    """
    given = {"text": text, "image": image, "vector": vector}
    asked = [name for name, value in given.items() if value is not None]
    for name in asked:
        if name not in diffusion.conditions:
            known = ", ".join(f"--{each}" for each in diffusion.conditions.given) or "none"
            raise ValueError(
                f"--{name}: expected a condition of this run ({known}), got --{name}. "
                "Fix: leave it out, or train a model with this condition."
            )
    values: dict[str, Sequence[Any]] = {}
    columns, notes = None, []
    if text is not None:
        columns = _columns(count, len(text))
        values["text"] = [text[i // columns] for i in range(count)]
        notes.append(f"rows: {'; '.join(text)}")
    if labels is not None or not asked:
        classes = chosen_classes(labels, diffusion.num_classes, diffusion.class_names)
        if classes:
            values["labels"] = [classes[i % len(classes)] for i in range(count)]
            columns = columns or len(classes)
        if classes and diffusion.class_names and text is None:
            notes.append(f"columns: {', '.join(diffusion.class_names[n] for n in classes)}")
    if image is not None:
        images = _images(Path(image), diffusion)
        values["image"] = [images[i % len(images)] for i in range(count)]
    if vector is not None:
        values["vector"] = [torch.tensor([*vector], dtype=torch.float32)] * count
    return Asked(values, columns, "".join(f", {note:.500}" for note in notes))


def read_texts(text: Sequence[str] | None) -> list[str] | None:
    """Returns the texts of --text, of which one that names a .txt file stands for its lines.

    Raises:
        ValueError: If a text is empty, or a file cannot be read.
    """
    if text is None:
        return None
    found: list[str] = []
    for one in text:
        lines = [one]
        if one.endswith(".txt"):
            if not Path(one).is_file():
                raise ValueError(f"--text: expected an existing file, got {one}. Fix: correct it.")
            content = Path(one).read_text(encoding="utf-8")
            lines = [line for line in content.splitlines() if line.strip()]
        found += lines
    if not found:
        raise ValueError("--text: expected at least one text, got none. Fix: write one a line.")
    return found


def _columns(count: int, texts: int) -> int:
    if count < texts:
        raise ValueError(
            f"--num_samples: expected at least one for each of {texts} texts, got {count}. "
            f"Fix: set --num_samples {texts}."
        )
    return math.ceil(count / texts)


def _images(path: Path, diffusion: GaussianDiffusion) -> list[Tensor]:
    """Returns images of a file or a folder in their own sizes, as uint8 tensors."""
    channels = diffusion.signature.image_channels or 3
    files = sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(
            f"--image: expected an image or a folder of them, got {path}. Fix: try ls."
        )
    white = (255, 255, 255)
    return [to_tensor(decode_image(str(file), channels, white), channels) for file in files]


def _stacked(name: str, values: Sequence[Any]) -> Tensor:
    """Returns the values of a batch as one tensor.

    Raises:
        ValueError: If images differ in size.
    """
    if isinstance(values[0], Tensor):
        if len({value.shape for value in values}) > 1:
            raise ValueError(
                f"--{name}: expected images of one size, got {[*values[0].shape]} and others. "
                "Fix: resize them to the size that the model was trained with."
            )
        return torch.stack([*values])
    return torch.from_numpy(np.asarray(values))
