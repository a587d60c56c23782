"""Readers of the three layouts of demonstrations on disk."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..parts.extras import require
from ..storage.config import read_json
from ..storage.reading import check_memory, check_regular
from .episodes import Episodes, check_names, reading
from .replay_buffer import read_buffer

_BYTES_OF_A_NUMBER = 40  # in a list of Python


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
        return read_buffer(path, names)
    if (path / "meta" / "info.json").is_file():
        return _from_lerobot(path, names)
    files = [path] if path.suffix == ".npz" else sorted(path.glob("*.npz"))
    if not files or not files[0].is_file():
        raise ValueError(
            f"{path}: expected demonstrations, got none. Fix: give a folder of .npz files, a zarr "
            "replay buffer (data/, meta/episode_ends) or a LeRobot dataset (meta/info.json)."
        )
    return _concatenate({file: _from_npz(file, names) for file in files})


def _from_npz(file: Path, names: Sequence[str]) -> Episodes:
    check_regular(file)
    with reading(file), np.load(file, allow_pickle=False) as stored:
        check_names(names, stored.files, file)
        sizes = {member.filename: member.file_size for member in stored.zip.infolist()}
        check_memory(sum(sizes.get(f"{name}.npy", 0) for name in names), str(file))
        arrays = {name: stored[name] for name in names}
        ends = stored["episode_ends"] if "episode_ends" in stored.files else [len(arrays[names[0]])]
        return Episodes(arrays, ends)


def _from_lerobot(path: Path, names: Sequence[str]) -> Episodes:
    require("pyarrow", f"the LeRobot dataset {path}")
    from pyarrow import parquet

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
            check_regular(file)
            _check_table(parquet.read_metadata(file), columns, file)
            table = parquet.read_table(file, columns=list(columns))
            for name, column in columns.items():
                column.append(_column(table[name].to_pylist(), name, file))
    with reading(path):
        arrays = {name: np.concatenate(column) for name, column in columns.items()}
        order = np.lexsort((arrays.pop("frame_index"), arrays["episode_index"]))
        episode = arrays.pop("episode_index")[order]
        ends = [*(np.flatnonzero(np.diff(episode)) + 1), len(episode)]
        return Episodes({name: values[order] for name, values in arrays.items()}, ends)


def _check_table(metadata: Any, names: Collection[str], file: Path) -> None:
    """Raises ValueError if columns are missing in a parquet file, or exceed the free memory."""
    check_names([*names], metadata.schema.to_arrow_schema().names, file)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    size = 0
    for column in columns:
        if column.path_in_schema.startswith(tuple(names)):
            size += column.total_uncompressed_size + _BYTES_OF_A_NUMBER * column.num_values
    check_memory(size, str(file))


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


def _concatenate(parts: Mapping[Path, Episodes]) -> Episodes:
    """Joins the episodes of several files."""
    first, *others = parts
    names = parts[first].arrays
    for file in others:
        for name, values in parts[file].arrays.items():
            if values.shape[1:] != (shape := names[name].shape[1:]):
                raise ValueError(
                    f"{file}: expected {name!r} of shape {['steps', *shape]}, as in {first.name}, "
                    f"got {['steps', *values.shape[1:]]}. Fix: convert the data to one shape."
                )
    lengths = np.concatenate([part.ends - part.starts for part in parts.values()])
    return Episodes(
        {n: np.concatenate([part.arrays[n] for part in parts.values()]) for n in names},
        np.cumsum(lengths),
    )
