"""Lists of the images in shards, cached in files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import get_ident

import numpy as np

from ..loading.own_files import read_sealed, write_sealed
from .told import BAD_LABEL, MAX_CLASSES, NO_LABEL, Told


def load_or_make(path: Path, dtype: np.dtype, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Loads the array in a file; if missing or damaged, calls `make` and saves its result."""
    if (content := read_sealed(path)) is not None:
        return np.frombuffer(content, dtype)
    array = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{get_ident()}.part")
    write_sealed(path, array.tobytes(), part)
    return array


def check_labels(images: np.ndarray, name: Callable[[int], str]) -> None:
    """Raises ValueError for the first image of a shard without a class number, if there is one.

    Args:
        images: Images of the shard, an array of RECORD.
        name: Returns the name of the image at an offset.
    """
    if (images["label"] >= 0).all():
        return
    first = images[np.argmax(images["label"] < 0)]
    got = {NO_LABEL: "no label", BAD_LABEL: "other text"}[int(first["label"])]
    raise ValueError(
        f"Expected an integer below {MAX_CLASSES} as label of "
        f"image {name(int(first['offset']))!r}, got {got}. "
        "Fix: write it to KEY.cls, or set --data.labels false."
    )


def untold(images: np.ndarray, told: Told) -> np.ndarray:
    """Returns which images of a shard lack a member that they need, booleans [images]."""
    lacks = [images[ending][:, 0] == 0 for ending in told.needs]
    return np.logical_or.reduce(lacks) if lacks else np.zeros(len(images), bool)


def check_told(images: np.ndarray, told: Told, count: int, name: Callable[[int], str]) -> None:
    """Raises ValueError for the first image of a shard without a member that it needs.

    Args:
        images: Images of the shard, an array of RECORD.
        told: Members that images need.
        count: Number of images without them in all shards.
        name: Returns the name of the image at an offset.
    """
    if (where := untold(images, told)).any():
        first = images[np.argmax(where)]
        ending = next(ending for ending in told.needs if first[ending][0] == 0)
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise ValueError(
            f"Expected a member KEY{ending} of at most 1 MB for each image, got none for "
            f"{name(int(first['offset']))!r}{more}. Fix: write it, or leave the image out."
        )
