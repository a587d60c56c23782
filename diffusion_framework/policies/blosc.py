"""Checks of zarr chunks that Blosc compressed, whose decoder trusts their headers."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<4x3I")  # of 16 bytes: versions, flags; bytes unpacked, of a block, packed
_LARGEST_ITEM = 16  # bytes of the widest number, complex128


def check_blosc(folder: Path, metadata: Mapping[str, Any], chunk: int) -> None:
    """Checks the chunks of an array by their headers, if Blosc compressed them.

    A header that contradicts the size of its file makes the decoder read or write other memory.

    Args:
        folder: Folder of the array.
        metadata: Metadata of the array, of zarr's format 2 or 3.
        chunk: Number of values of a chunk.

    Raises:
        ValueError: If a header does not fit its file or the array, or Blosc is not the last codec.
    """
    codecs: list[Any] = list(metadata.get("filters") or ())
    codecs += metadata.get("codecs") or [metadata.get("compressor")]
    if "blosc" not in str(codecs).lower():
        return
    before, last = codecs[:-1], codecs[-1]
    name = last.get("name", last.get("id")) if isinstance(last, dict) else None
    if name not in ("blosc", "numcodecs.blosc") or "blosc" in str(before).lower():
        raise ValueError(
            f"{folder}: expected Blosc as the last codec of whole chunks, got it within another. "
            "Fix: export the data with one compressor."
        )
    for place, _, files in os.walk(folder):
        for file in files:
            if re.fullmatch(r"(c\.)?\d+(\.\d+)*|c", file):
                _check_chunk(Path(place, file), chunk * _LARGEST_ITEM)


def _check_chunk(path: Path, largest: int) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(_HEADER.size)
    unpacked, block, packed = _HEADER.unpack(start) if len(start) == _HEADER.size else (0, 0, 0)
    if packed != size or not 0 < block <= max(unpacked, 1) or unpacked > largest:
        raise ValueError(
            f"{path}: expected a chunk of at most {largest} bytes compressed by Blosc, got a "
            "damaged header. Fix: copy or export the data again."
        )
