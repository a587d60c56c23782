"""Zarr groups for tests and trials, written by any version of zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

try:
    import zarr
except ImportError:  # the package is optional
    FORMATS: tuple[int, ...] = ()
else:
    FORMATS = (2, 3) if int(zarr.__version__.split(".")[0]) > 2 else (2,)


def new_group(folder: Path, version: int) -> Any:
    """Returns a new group in a folder, in a format of `FORMATS`."""
    options = {"zarr_format": version} if 3 in FORMATS else {}
    return zarr.open_group(str(folder), mode="w", **options)


def add_array(group: Any, name: str, values: np.ndarray, **options: Any) -> None:
    """Adds an array to a group.

    Args:
        group: Group of `new_group`.
        name: Place of the array.
        values: Its values.
        options: Chunks, shards, and the last codec as `compressors`.
    """
    if 3 in FORMATS:
        group.create_array(name, data=values, **options)
        return
    if "compressors" in options:
        options["compressor"] = options.pop("compressors")
    group.create_dataset(name, data=values, **options)
