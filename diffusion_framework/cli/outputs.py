"""The folder that `diffusion sample` writes to, with an index of its files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from ..storage.checkpoint import CHECKPOINTS
from ..storage.files import sha256
from ..storage.reading import read_file
from ..storage.replacing import replacing

INDEX = "index.csv"
_HEADER = "file,sha256"
_NAME = re.compile(r"\d{5,}\.(png|npy)|grid\.png", re.ASCII)
_ROW = re.compile(rf"({_NAME.pattern}),([0-9a-f]{{64}})", re.ASCII)
_MAX_BYTES = 100_000_000  # of an index: a million rows


class Outputs:
    """A folder of samples. `index.csv` lists the name and the SHA-256 of each file written to it.

    Args:
        folder: Folder, which is made at the first `write`.
        overwrite: Whether the files of an earlier call are deleted at the first `write`. A file
            counts only if the index lists it and its content is still the same.

    Raises:
        ValueError: If the folder belongs to a run, or holds images, with `overwrite` images of
            others.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self.folder, self._begun = folder, False
        if _is_of_a_run(folder.resolve()):
            raise ValueError(
                f"--output: expected a folder of its own for the samples, got {folder}, where a "
                "run keeps its files. Fix: choose another folder."
            )
        if not overwrite and any((*folder.glob("*.png"), *folder.glob("*.npy"))):
            raise ValueError(
                f"--output: expected a folder without images, got {folder}. "
                "Fix: choose another folder, or add --overwrite."
            )
        ours = {folder / INDEX, *self._listed()} if self._has_index() else set()
        for path in sorted(folder.glob("*")):
            if (_NAME.fullmatch(path.name) or path.name == INDEX) and path not in ours:
                raise ValueError(
                    f"--output: expected only files that an earlier call wrote and {INDEX} "
                    f"lists, got {path}. Fix: move it, or choose another folder."
                )

    def write(self, name: str, content: bytes) -> None:
        """Writes a file atomically, after its row in the index."""
        if not self._begun:
            self._begin()
        with open(self.folder / INDEX, "a", encoding="utf-8") as index:
            index.write(f"{name},{hashlib.sha256(content).hexdigest()}\n")
        with replacing(self.folder / name) as file:
            file.write(content)

    def _begin(self) -> None:
        """Deletes the files of an earlier call, then its index, and begins a new index."""
        for path in self._listed():
            path.unlink()
        with replacing(self.folder / INDEX, "t") as index:
            index.write(f"{_HEADER}\n")
        self._begun = True

    def _has_index(self) -> bool:
        """Returns whether the folder has an index of this class, not another file of its name."""
        index = self.folder / INDEX
        if not index.is_file() or index.is_symlink():
            return False
        with open(index, "rb") as file:
            return file.readline(len(_HEADER) + 1).rstrip() == _HEADER.encode()

    def _listed(self) -> Iterator[Path]:
        """Yields the files in the index that are still as they were written; links are left out."""
        if not self._has_index():
            return
        rows = read_file(self.folder / INDEX, _MAX_BYTES).decode(errors="replace").splitlines()
        for row in dict.fromkeys(rows):
            if match := _ROW.fullmatch(row):
                path = self.folder / match[1]
                if path.is_file() and not path.is_symlink() and sha256(path) == match[3]:
                    yield path


def _is_of_a_run(folder: Path) -> bool:
    """Returns whether a training run writes to this folder: its own, samples or checkpoints."""
    inside = folder.name in ("samples", CHECKPOINTS) and (folder.parent / CHECKPOINTS).is_dir()
    return inside or (folder / CHECKPOINTS).is_dir() or folder.parent.name == CHECKPOINTS
