"""Demonstrations in memory, and readers of their three layouts on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


class Episodes:
    """Concatenated steps of several episodes.

    Args:
        arrays: Arrays by name, [steps, ...], aligned by step.
        ends: Cumulative number of steps at the end of each episode, [episodes], as in a replay
            buffer.

    Raises:
        ValueError: If arrays and ends do not match, an episode is empty, or a value is NaN or
            infinite.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], ends: Sequence[int] | np.ndarray) -> None:
        self.arrays = {name: np.asarray(values) for name, values in arrays.items()}
        self.ends = np.asarray(ends, dtype=np.int64).reshape(-1)
        self.starts = np.concatenate([[0], self.ends[:-1]]).astype(np.int64)
        if not len(self.ends) or (self.ends <= self.starts).any():
            raise ValueError(
                f"Expected episode ends that increase from above 0, got {self.ends.tolist()[:10]}. "
                "Fix: give the cumulative number of steps at the end of each episode."
            )
        for name, values in self.arrays.items():
            if len(values) != self.ends[-1]:
                raise ValueError(
                    f"Expected {self.ends[-1]} steps in {name!r}, where the last episode ends, got "
                    f"{len(values)}. Fix: give one row of each array for each step."
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                step = int(
                    np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0, 0]
                )
                episode = int(np.searchsorted(self.ends, step, side="right"))
                raise ValueError(
                    f"Expected finite values in {name!r}, got NaN or infinity in episode "
                    f"{episode}, step {step}. Fix: clean the data."
                )

    def __len__(self) -> int:
        return len(self.ends)

    def select(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """Returns the chosen episodes, in the given order."""
        steps = np.concatenate([np.arange(self.starts[i], self.ends[i]) for i in episodes])
        lengths = (self.ends - self.starts)[np.asarray(episodes)]
        return Episodes(
            {name: values[steps] for name, values in self.arrays.items()}, np.cumsum(lengths)
        )

    def fingerprint(self) -> str:
        """Returns a hash of all values."""
        digest = hashlib.sha256(self.ends.tobytes())
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()


def load_episodes(path: str | os.PathLike[str], names: Sequence[str]) -> Episodes:
    """Loads the named arrays of all episodes at a path.

    The path is one of

    - a `.npz` file, or a folder of them in the order of their names. A file holds arrays
      [steps, ...] of one episode, or of several if it also holds `episode_ends`.
    - a zarr replay buffer, with arrays in `data/` and `meta/episode_ends` (Chi et al. 2023).
      Requires zarr.
    - a LeRobot dataset, with `meta/info.json` and parquet files in `data/`. Requires pyarrow.

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
    with np.load(file, allow_pickle=False) as stored:
        _check_names(names, stored.files, file)
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
    group: Any = zarr.open_group(os.fspath(path), mode="r")
    _check_names(names, [array.name for array in (path / "data").iterdir() if array.is_dir()], path)
    return Episodes(
        {name: group[f"data/{name}"][:] for name in names}, group["meta/episode_ends"][:]
    )


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
    version = json.loads((path / "meta" / "info.json").read_text()).get(
        "codebase_version", "unknown"
    )
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise ValueError(
            f"{path}: expected parquet files in data/, got none (LeRobot {version}). "
            "Fix: download the complete dataset."
        )
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("episode_index", "frame_index", *names)
    }
    for file in files:
        _check_names(names, parquet.read_schema(file).names, file)
        table = parquet.read_table(file, columns=["episode_index", "frame_index", *names])
        for name, column in parts.items():
            column.append(np.array(table[name].to_pylist()))
    arrays = {name: np.concatenate(column) for name, column in parts.items()}
    order = np.lexsort((arrays.pop("frame_index"), arrays["episode_index"]))
    episode = arrays.pop("episode_index")[order]
    ends = [*(np.flatnonzero(np.diff(episode)) + 1), len(episode)]
    return Episodes({name: values[order] for name, values in arrays.items()}, ends)


def _check_names(names: Sequence[str], found: Sequence[str], path: Path) -> None:
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{path}: expected arrays named {', '.join(missing)}, got only "
            f"{', '.join(sorted(found))}. Fix: choose among these names."
        )


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
