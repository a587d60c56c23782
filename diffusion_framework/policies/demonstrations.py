"""Demonstrations in memory, and the three layouts on disk that they are read from."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Episodes:
    """The steps of many episodes end to end.

    Args:
        arrays: By name, [steps, ...]; step i of each belongs together.
        ends: [episodes] number of steps up to the end of each episode, as in a replay buffer.

    Raises:
        ValueError: arrays or ends that do not fit together, an empty episode, or NaN or infinity.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], ends: Sequence[int] | np.ndarray) -> None:
        self.arrays = {name: np.asarray(values) for name, values in arrays.items()}
        self.ends = np.asarray(ends, dtype=np.int64).reshape(-1)
        self.starts = np.concatenate([[0], self.ends[:-1]]).astype(np.int64)
        if not len(self.ends) or (self.ends <= self.starts).any():
            raise ValueError(f"episode ends must rise from above 0; got {self.ends.tolist()[:10]}")
        for name, values in self.arrays.items():
            if len(values) != self.ends[-1]:
                raise ValueError(
                    f"{name!r} has {len(values)} steps, the episodes end at {self.ends[-1]}"
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                step = int(
                    np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0, 0]
                )
                episode = int(np.searchsorted(self.ends, step, side="right"))
                raise ValueError(
                    f"{name!r} holds NaN or infinity in episode {episode}, step {step}; clean the "
                    f"data"
                )

    def __len__(self) -> int:
        return len(self.ends)

    def select(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """Only these episodes, in this order."""
        steps = np.concatenate([np.arange(self.starts[i], self.ends[i]) for i in episodes])
        lengths = (self.ends - self.starts)[np.asarray(episodes)]
        return Episodes(
            {name: values[steps] for name, values in self.arrays.items()}, np.cumsum(lengths)
        )

    def fingerprint(self) -> str:
        """A hash of every number."""
        digest = hashlib.sha256(self.ends.tobytes())
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()


def load_episodes(path: str | os.PathLike[str], names: Sequence[str]) -> Episodes:
    """The named arrays of all episodes at `path`, which is one of

    - a folder of `.npz` files in the order of their names, or one such file: each is an episode of
      arrays [steps, ...], or several of them if it also holds `episode_ends`;
    - a zarr replay buffer, with arrays in `data/` and `meta/episode_ends` (Chi et al. 2023); needs
      zarr;
    - a LeRobot data set, with `meta/info.json` and parquet files below `data/`; needs pyarrow.

    Raises:
        ValueError: none of these, a name that is missing, or arrays that do not fit together.
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
            f"no episodes at {path}; give a folder of .npz files, a zarr replay buffer (data/, "
            f"meta/episode_ends) or a "
            "LeRobot data set (meta/info.json)"
        )
    return _joined([_from_npz(file, names) for file in files])


def _from_npz(file: Path, names: Sequence[str]) -> Episodes:
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _present(names, stored.files, file)}
        ends = stored["episode_ends"] if "episode_ends" in stored.files else [len(arrays[names[0]])]
    return Episodes(arrays, ends)


def _from_zarr(path: Path, names: Sequence[str]) -> Episodes:
    try:
        import zarr
    except ImportError as error:
        raise ValueError(
            f"{path} needs the package zarr; pip install 'diffusion-framework[policy]'"
        ) from error
    _refuse_objects(path)
    group: Any = zarr.open_group(os.fspath(path), mode="r")
    present = _present(
        names, [array.name for array in (path / "data").iterdir() if array.is_dir()], path
    )
    return Episodes(
        {name: group[f"data/{name}"][:] for name in present}, group["meta/episode_ends"][:]
    )


def _refuse_objects(path: Path) -> None:
    """Raise ValueError for arrays of Python objects or with unknown codecs: reading one may run
    code.
    """
    for file in sorted(path.rglob("*")):
        if file.name not in (".zarray", ".zmetadata", "zarr.json"):
            continue
        try:
            words = list(_types_and_codecs(json.loads(file.read_bytes())))
        except (ValueError, RecursionError, OSError) as error:
            raise ValueError(
                f"{file} cannot be read ({' '.join(str(error).split()):.200})"
            ) from error
        for kind, word in words:
            if kind == "codec" and (word in _CODECS or word.startswith("imagecodecs_")):
                continue
            if kind == "dtype" and (
                word in _TYPES or re.fullmatch(r"[<>|=]?[biufcSUM]\d+(\[\w+\])?", word)
            ):
                continue
            raise ValueError(f"{file} has the {kind} {word!r:.60}. Fix: store numbers only.")


_CODECS = {
    *(
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
    ),
    *(
        "crc32c",
        "crc32",
        "adler32",
        "fletcher32",
        "jenkins_lookup3",
        "shuffle",
        "bitround",
        "fixedscaleoffset",
    ),
    *("quantize", "packbits", "astype"),
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


def _types_and_codecs(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The dtypes and codecs that zarr's metadata (of format 2 and 3) name, leaving out users'
    attributes.
    """
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


_CODEC_KEYS = ("filters", "compressor", "codecs", "index_codecs")


def _from_lerobot(path: Path, names: Sequence[str]) -> Episodes:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{path} needs the package pyarrow; pip install 'diffusion-framework[policy]'"
        ) from error
    version = json.loads((path / "meta" / "info.json").read_text()).get(
        "codebase_version", "unknown"
    )
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise ValueError(f"{path} (LeRobot {version}) has no parquet files below data/")
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("episode_index", "frame_index", *names)
    }
    for file in files:
        present = _present(names, parquet.read_schema(file).names, file)
        table = parquet.read_table(file, columns=["episode_index", "frame_index", *present])
        for name, column in parts.items():
            column.append(np.array(table[name].to_pylist()))
    arrays = {name: np.concatenate(column) for name, column in parts.items()}
    order = np.lexsort((arrays.pop("frame_index"), arrays["episode_index"]))
    episode = arrays.pop("episode_index")[order]
    ends = [*(np.flatnonzero(np.diff(episode)) + 1), len(episode)]
    return Episodes({name: values[order] for name, values in arrays.items()}, ends)


def _present(names: Sequence[str], found: Sequence[str], where: Path) -> Sequence[str]:
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{where} has no {', '.join(missing)}; it has {', '.join(sorted(found))}: name those"
        )
    return names


def _joined(parts: Sequence[Episodes]) -> Episodes:
    names = parts[0].arrays
    for name in names:
        if len(shapes := {part.arrays[name].shape[1:] for part in parts}) > 1:
            raise ValueError(f"{name!r} has different shapes in different files: {sorted(shapes)}")
    lengths = np.concatenate([part.ends - part.starts for part in parts])
    return Episodes(
        {n: np.concatenate([part.arrays[n] for part in parts]) for n in names}, np.cumsum(lengths)
    )
