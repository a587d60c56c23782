"""Readers of the three layouts of demonstrations on disk."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..storage.config import read_json
from .episodes import Episodes, check_names, reading

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


def load_episodes(path: str | os.PathLike[str], names: Sequence[str]) -> Episodes:
    """Loads the named arrays of all episodes at a path.

    The path is one of

    - a `.npz` file, or a folder of them in the order of their names. A file holds arrays
      [steps, ...] of one episode, or of several if it also holds `episode_ends`.
    - a zarr replay buffer, with arrays in `data/` and `meta/episode_ends` (Chi et al. 2023).
      Requires zarr.
    - a LeRobot dataset, with `meta/info.json` and parquet files in `data/`. Columns of encoded
      images are decoded; videos are not read. Requires pyarrow.

    Args:
        path: Location of the demonstrations.
        names: Names of the arrays to load.

    Raises:
        ValueError: If the path has another layout, an array is missing or cannot be read, or the
            arrays do not match.
    """
    path = Path(path)
    if (path / "data").is_dir() and any(
        (path / file).is_file() for file in (".zgroup", "zarr.json")
    ):
        return _from_zarr(path, names)
    if (path / "meta" / "info.json").is_file():
        return _from_lerobot(path, names)
    files = [path] if path.suffix == ".npz" else sorted(path.glob("*.npz"))
    if not files or not files[0].is_file():
        raise ValueError(
            f"{path}: expected demonstrations, got none. Fix: give a folder of .npz files, a zarr "
            "replay buffer (data/, meta/episode_ends) or a LeRobot dataset (meta/info.json)."
        )
    return _concatenate([_from_npz(file, names) for file in files])


def _from_npz(file: Path, names: Sequence[str]) -> Episodes:
    with reading(file), np.load(file, allow_pickle=False) as stored:
        check_names(names, stored.files, file)
        arrays = {name: stored[name] for name in names}
        ends = stored["episode_ends"] if "episode_ends" in stored.files else [len(arrays[names[0]])]
        return Episodes(arrays, ends)


def _from_zarr(path: Path, names: Sequence[str]) -> Episodes:
    try:
        import zarr
    except ImportError as error:
        raise ValueError(
            f"{path}: expected the package zarr to read it, got none. "
            "Fix: pip install 'diffusion-framework[policy]'."
        ) from error
    _refuse_objects(path)
    if not (path / "meta" / "episode_ends").is_dir():
        raise ValueError(
            f"{path}: expected the array meta/episode_ends, got none. Fix: store the cumulative "
            "number of steps at the end of each episode."
        )
    check_names(names, [array.name for array in (path / "data").iterdir() if array.is_dir()], path)
    with reading(path):
        group: Any = zarr.open_group(os.fspath(path), mode="r")
        arrays = {name: group[f"data/{name}"][:] for name in names}
        return Episodes(arrays, group["meta/episode_ends"][:])


def _refuse_objects(path: Path) -> None:
    """Refuses arrays of Python objects or with unknown codecs, whose reading may run code."""
    for file in sorted(path.rglob("*")):
        if file.name not in (".zarray", ".zmetadata", "zarr.json"):
            continue
        try:
            words = list(_types_and_codecs(json.loads(file.read_bytes())))
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


def _from_lerobot(path: Path, names: Sequence[str]) -> Episodes:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{path}: expected the package pyarrow to read it, got none. "
            "Fix: pip install 'diffusion-framework[policy]'."
        ) from error
    info = read_json(path / "meta" / "info.json")
    info = info if isinstance(info, Mapping) else {}
    _check_videos(info, names, path)
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise ValueError(
            f"{path}: expected parquet files in data/, got none (LeRobot "
            f"{info.get('codebase_version', 'unknown')}). Fix: download the complete dataset."
        )
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("episode_index", "frame_index", *names)
    }
    for file in files:
        with reading(file):
            found = parquet.read_schema(file).names
            check_names(names, found, file)
            table = parquet.read_table(file, columns=list(columns))
            for name, column in columns.items():
                column.append(_column(table[name].to_pylist(), name, file))
    with reading(path):
        arrays = {name: np.concatenate(column) for name, column in columns.items()}
        order = np.lexsort((arrays.pop("frame_index"), arrays["episode_index"]))
        episode = arrays.pop("episode_index")[order]
        ends = [*(np.flatnonzero(np.diff(episode)) + 1), len(episode)]
        return Episodes({name: values[order] for name, values in arrays.items()}, ends)


def _check_videos(info: Mapping[str, Any], names: Sequence[str], path: Path) -> None:
    """Raises ValueError if a LeRobot dataset stores one of these streams as a video."""
    features = info.get("features")
    if not isinstance(features, Mapping):
        return
    for name in names:
        feature = features.get(name)
        if isinstance(feature, Mapping) and feature.get("dtype") == "video":
            raise ValueError(
                f"{path}: expected numbers or embedded images in {name!r}, got a video. "
                "Fix: export the dataset with images in place of videos."
            )


def _column(rows: Sequence[Any], name: str, file: Path) -> np.ndarray:
    """Returns the rows of a column as one array, with encoded images decoded."""
    if rows and isinstance(rows[0], Mapping) and "bytes" in rows[0]:
        rows = [_decoded(row.get("bytes"), name, file) for row in rows]
    values = np.array(rows)
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"{file}: expected numbers or encoded images in {name!r}, got "
            f"{type(rows[0]).__name__}. Fix: leave this column out, or convert it to numbers."
        )
    return values


def _decoded(encoded: bytes | None, name: str, file: Path) -> np.ndarray:
    """Returns an image [height, width, channels] from the bytes of an image file."""
    if not encoded:
        raise ValueError(
            f"{file}: expected the bytes of an image in {name!r}, got only its path. "
            "Fix: export the dataset with embedded images."
        )
    with Image.open(io.BytesIO(encoded)) as image:
        plain = image.mode in ("L", "RGB", "RGBA", "I;16")
        pixels = np.asarray(image if plain else image.convert("RGB"))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _concatenate(parts: Sequence[Episodes]) -> Episodes:
    names = parts[0].arrays
    for name in names:
        if len(shapes := {part.arrays[name].shape[1:] for part in parts}) > 1:
            raise ValueError(
                f"Expected the same shape of {name!r} in all files, got {sorted(shapes)}. "
                "Fix: convert the data to one shape."
            )
    lengths = np.concatenate([part.ends - part.starts for part in parts])
    return Episodes(
        {n: np.concatenate([part.arrays[n] for part in parts]) for n in names}, np.cumsum(lengths)
    )
