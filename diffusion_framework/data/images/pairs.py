"""Pictures that belong to other pictures: those of the same names, and smaller copies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .metadata import check_complete
from .scan import scan_folder
from .texts import Texts


@dataclass(frozen=True)
class Pairs:
    """A second picture for each picture of a folder.

    Attributes:
        folder: Absolute path of the folder of pairs.
        paths: Path of each picture's pair, relative to it.
        unused: Number of pictures in the folder that are no pair.
    """

    folder: str
    paths: Texts
    unused: int

    def path(self, index: int) -> str:
        """Returns the path of the pair of a picture."""
        return os.path.join(self.folder, self.paths[index])

    def subset(self, indices: np.ndarray) -> Pairs:
        """Returns the pairs of some pictures, in this order."""
        return replace(self, paths=self.paths.chosen(indices))


def checked_copy(
    size: int | tuple[int, int] | None, image_size: tuple[int, int], pairs: Any
) -> tuple[int, int] | None:
    """Returns the (height, width) of smaller copies of pictures.

    Args:
        size: Side or (height, width); None for no copies.
        image_size: (height, width) of the pictures.
        pairs: Folder of pairs, or None.

    Raises:
        ValueError: copies that are not smaller, or copies and pairs.
    """
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= image_size[0] and 1 <= width <= image_size[1]):
        raise ValueError(
            f"Expected low_resolution of 1 to {min(image_size)} for images of {[*image_size]}, "
            f"got {size}. Fix: try {max(1, min(image_size) // 4)}."
        )
    if pairs is not None:
        raise ValueError(
            f"Expected pairs or low_resolution, got {os.fspath(pairs)!r} and {size}; both are the "
            "condition 'image'. Fix: leave one of them out."
        )
    return height, width


def find_pairs(
    folder: str, paths: Sequence[str], pairs: str | os.PathLike[str], endings: Sequence[str]
) -> Pairs:
    """Finds the picture of the same relative name, but for its ending, of each picture.

    Args:
        folder: Absolute path of the folder of pictures.
        paths: Paths of the pictures relative to it.
        pairs: Folder of the pairs, which is searched with its subfolders.
        endings: Endings of pictures in lower case with the dot.

    Raises:
        FileNotFoundError: the folder of pairs does not exist.
        ValueError: no name is common, a picture has no pair, or it has two.
    """
    scan = scan_folder(pairs, tuple(endings))
    if scan.folder == folder:
        raise ValueError(
            f"Expected another folder for the pairs than that of the pictures, got {folder}. "
            "Fix: give the folder of the pairs as --data.pairs."
        )
    pair_of: dict[str, str] = {}
    doubled: dict[str, str] = {}
    for path in scan.paths:
        stem = os.path.splitext(path)[0]
        if pair_of.setdefault(stem, path) != path:
            doubled.setdefault(stem, path)
    stems = [os.path.splitext(path)[0] for path in paths]
    if not any(stem in pair_of for stem in stems):
        raise ValueError(
            f"Expected pairs of the same names in {scan.folder} as the pictures in {folder}, got "
            f"{scan.paths[0]!r} among {len(scan.paths)} and {paths[0]!r} among {len(paths)}, and "
            "none in common. Fix: name each pair as its picture; only the ending may differ."
        )
    if two := next((stem for stem in stems if stem in doubled), None):
        raise ValueError(
            f"Expected one pair for each picture in {folder}, got {pair_of[two]!r} and "
            f"{doubled[two]!r} in {scan.folder}. Fix: delete one of them."
        )
    found = {path for path, stem in zip(paths, stems, strict=True) if stem in pair_of}
    check_complete(paths, found, "a pair", folder, f"add it to {scan.folder}")
    unused = len(pair_of.keys() - set(stems))
    return Pairs(scan.folder, Texts(pair_of[stem] for stem in stems), unused)


def shrink(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns a smaller copy of an image, resized by the antialiased bicubic filter of Pillow.

    Args:
        image: Image of uint8 or uint16, [channels, height, width].
        size: (height, width) of the copy.
    """
    pixels = image.numpy()
    deep = pixels.dtype != np.uint8  # in floats, because Pillow resizes no such integers
    planes = [Image.fromarray(plane.astype(np.float32) if deep else plane) for plane in pixels]
    shrunk = [np.asarray(p.resize(size[::-1], Image.Resampling.BICUBIC)) for p in planes]
    if deep:
        shrunk = [np.rint(np.clip(plane, 0, 65535)) for plane in shrunk]
    return torch.from_numpy(np.stack(shrunk).astype(pixels.dtype))
