"""Reader of zarr replay buffers (Chi et al. 2023)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..parts.extras import require
from ..storage.reading import check_memory, check_regular, read_file
from .blosc import check_blosc
from .episodes import Episodes, check_names, reading

_METADATA = (".zgroup", ".zarray", ".zmetadata", "zarr.json")  # .zattrs holds user attributes
_MAX_BYTES = 4_000_000  # of metadata
_CODECS = {
    "bytes",
    "transpose",
    "sharding_indexed",
    "blosc",
    "zstd",
    "zlib",
    "gzip",
    "lz4",
    "lzma",
    "bz2",
    "delta",
    "crc32c",
    "crc32",
    "adler32",
    "fletcher32",
    "jenkins_lookup3",
    "shuffle",
    "bitround",
    "fixedscaleoffset",
    "quantize",
    "packbits",
    "astype",
}
_TYPES = {
    f"{kind}{bits}"
    for kind, sizes in {
        "int": (8, 16, 32, 64),
        "uint": (8, 16, 32, 64),
        "float": (16, 32, 64),
    }.items()
    for bits in sizes
} | {"bool", "complex64", "complex128"}
_CODEC_KEYS = ("filters", "compressor", "codecs", "index_codecs")


def read_buffer(path: Path, names: Sequence[str]) -> Episodes:
    """Returns the episodes of a replay buffer: arrays in `data/`, and `meta/episode_ends`.

    Raises:
        ValueError: If zarr is not installed, an array is missing or cannot be read, or holds
            Python objects.
    """
    zarr = require("zarr", f"the replay buffer {path}")
    if not (path / "meta" / "episode_ends").is_dir():
        raise ValueError(
            f"{path}: expected the array meta/episode_ends, got none. Fix: store the cumulative "
            "number of steps at the end of each episode."
        )
    check_names(names, [array.name for array in (path / "data").iterdir() if array.is_dir()], path)
    places = {"meta/episode_ends": path / "meta" / "episode_ends"}
    places |= {f"data/{name}": path / "data" / name for name in names}
    for group in (path, path / "data", path / "meta"):
        _refuse_objects(group)
    for folder in places.values():
        _refuse_strange_files(folder)
        _refuse_objects(folder)
    arrays = {place: _read(zarr, folder) for place, folder in places.items()}
    ends = arrays.pop("meta/episode_ends")
    with reading(path):
        return Episodes({name: arrays[f"data/{name}"] for name in names}, ends)


def _read(zarr: Any, folder: Path) -> np.ndarray:
    """Returns the values of the array in a folder, if they fit the free memory."""
    with reading(folder):
        array = zarr.open_array(os.fspath(folder), mode="r")
        chunk = math.prod(array.chunks)
        check_memory((math.prod(array.shape) + chunk) * array.dtype.itemsize, str(folder))
        (file,) = (folder / name for name in (".zarray", "zarr.json") if (folder / name).exists())
        check_blosc(folder, json.loads(read_file(file, _MAX_BYTES)), chunk)
        return np.asarray(array[:])


def _refuse_strange_files(folder: Path) -> None:
    """Refuses an array with links to folders, pipes or devices among its files."""
    for place, folders, files in os.walk(folder):
        for name in folders:
            if Path(place, name).is_symlink():
                raise ValueError(
                    f"{Path(place, name)}: expected a folder of chunks, got a link. "
                    "Fix: copy the folder itself."
                )
        for name in files:
            check_regular(Path(place, name))


def _refuse_objects(path: Path) -> None:
    """Refuses an array of Python objects or with unknown codecs, whose reading may run code.

    Checks the metadata in this folder, which zarr reads to open the array.
    """
    for file in (path / name for name in _METADATA):
        if not os.path.lexists(file):
            continue
        try:
            words = list(_types_and_codecs(json.loads(read_file(file, _MAX_BYTES))))
        except (ValueError, RecursionError, OSError) as error:
            raise ValueError(
                f"{file}: expected the metadata of a zarr array, got a file that cannot be read "
                f"({' '.join(str(error).split()):.200}). Fix: copy or export the data again."
            ) from error
        for kind, word in words:
            if kind == "codec" and (word in _CODECS or word.startswith("imagecodecs_")):
                continue
            if kind == "dtype" and (
                word in _TYPES or re.fullmatch(r"[<>|=]?[biufcSUM]\d+(\[\w+\])?", word)
            ):
                continue
            raise ValueError(
                f"{file}: expected an array of numbers, got the {kind} {word!r:.60}. "
                "Fix: store numbers only, with a codec of zarr or numcodecs."
            )


def _types_and_codecs(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dtypes and codecs in zarr metadata of format 2 or 3, without user attributes."""
    if isinstance(node, list):
        for item in node:
            yield from _types_and_codecs(item, key)
    elif isinstance(node, dict):
        for name, value in node.items():
            codec = isinstance(value, str) and key in _CODEC_KEYS and name in ("id", "name")
            if codec:
                yield "codec", str(value).removeprefix("numcodecs.").lower()
            elif name in ("dtype", "data_type"):
                yield "dtype", value if isinstance(value, str) else "of another form"
            elif name != "attributes" and not name.endswith(".zattrs"):
                yield from _types_and_codecs(value, name if name in _CODEC_KEYS else "")
