"""The conditions that lie beside the images of a folder: classes, texts and numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ...parts import unknown_name
from .captions import captions as captions_of
from .metadata import read_metadata
from .scan import Scan
from .texts import Texts
from .values import Values


@dataclass(frozen=True)
class Beside:
    """Images of a folder with their conditions.

    Args:
        paths: Paths of the images relative to the folder.
        values: Conditions of these images.
        class_names: Sorted names of the classes; empty without labels.
        files_read: Number of files that the conditions come from.
    """

    paths: Texts
    values: Values
    class_names: list[str]
    files_read: int


def conditions_of(
    scan: Scan,
    labels: bool | str,
    classes: Sequence[str] | None,
    captions: bool | str,
    vectors: Sequence[str] | None,
) -> Beside:
    """Returns the chosen images of a folder with their conditions.

    Args:
        scan: Images of the folder.
        labels: Whether top-level subfolders are classes, or the column of a table that names them.
        classes: Names of the only classes to load, or None.
        captions: Source of the texts; see `captions.captions`. False for none.
        vectors: Columns of numbers, or None.

    Raises:
        ValueError: an image without a condition, or with two; a damaged table; an unknown name.
    """
    paths, numbers, class_names = scan.paths, None, list[str]()
    table = read_metadata(scan.folder, paths, "labels") if isinstance(labels, str) else None
    if labels is not False or classes is not None:
        names = top_folders(scan) if table is None else table.words(str(labels), "labels")
        kept = _kept(names, classes)
        paths, names = [paths[i] for i in kept], [names[i] for i in kept]
        table = None if table is None else table.chosen(kept)
        if labels is not False:
            class_names, numbers = numbered(names, by_number=table is not None)
    metadata = cache(lambda: table or read_metadata(scan.folder, paths, "captions or vectors"))
    texts, used = captions_of(scan.folder, paths, captions, metadata) if captions else (None, 0)
    rows = metadata().vectors(vectors, "vectors") if vectors else None
    if table is not None or rows is not None or (captions and not used):
        used += len(metadata().files)
    values = Values(numbers, None if texts is None else Texts(texts), rows)
    return Beside(Texts(paths), values, class_names, used)


def top_folders(scan: Scan) -> list[str]:
    """Returns the top-level subfolder of each image.

    Raises:
        ValueError: an image lies directly in the folder.
    """
    for path in scan.paths:
        if "/" not in path:
            raise ValueError(
                "Expected each image in a subfolder named after its class, "
                f"got {path!r} directly in {scan.folder!r}. "
                "Fix: move it, or set --data.labels false."
            )
    return [path.partition("/")[0] for path in scan.paths]


def numbered(names: Sequence[str | int], by_number: bool) -> tuple[list[str], np.ndarray]:
    """Returns the sorted names of the classes, and the class of each image, int32 [images].

    Args:
        names: Name of the class of each image.
        by_number: Whether names that are all whole numbers are sorted as numbers.
    """
    known = sorted(set(map(str, names)))
    if by_number and all(name.isdecimal() for name in known):
        known.sort(key=int)
    number_of = {name: number for number, name in enumerate(known)}
    return known, np.array([number_of[str(name)] for name in names], np.int32)


def _kept(names: Sequence[str | int], classes: Collection[str] | None) -> Sequence[int]:
    """Returns the indices of the images of these classes; all for None.

    Raises:
        ValueError: a class without images.
    """
    if classes is None:
        return range(len(names))
    known = sorted(set(map(str, names)))
    for name in classes:
        if name not in known:
            raise unknown_name("classes", "a class of the images", name, known)
    return [i for i, name in enumerate(names) if str(name) in classes]
