"""Writes sealed folders: files, then a manifest with their sizes and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..parts import write_yaml
from .manifest import MANIFEST, manifest_text


def write_sealed(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    state: Mapping[str, Any],
) -> None:
    """Makes a folder and writes all files of a checkpoint to it, the manifest last.

    All files are flushed to the disk. The caller renames the folder to its final name, so that it
    is either complete or absent.

    Args:
        folder: Folder that does not exist yet.
        step: Number of optimizer steps done.
        tensors: Tensors by the name of their file, without suffix, and by their own names.
        config: All options that the run was built from, as plain data.
        state: Other data that resuming needs, as plain data.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir()
    (folder / "config.yaml").write_bytes(write_yaml(dict(config)).encode())
    (folder / "state.json").write_bytes(json.dumps(state, indent=1).encode())
    for name, group in tensors.items():
        _save_tensors(group, folder / f"{name}.safetensors")
        # safetensors lets only the owner read its files
        shutil.copymode(folder / "config.yaml", folder / f"{name}.safetensors")
    files = {
        file.name: {"size": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.iterdir())
    }
    manifest = manifest_text(step, files, str(torch.__version__))
    (folder / MANIFEST).write_bytes(manifest.encode())  # text would get other line ends on Windows
    for path in (*folder.iterdir(), folder):
        sync(path)


def _save_tensors(group: Mapping[str, Tensor], path: Path) -> None:
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in group.items()
    }
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # such as a full disk
        raise OSError(
            f"{path}: expected to write it, got an error ({error}). Earlier checkpoints are "
            "unchanged. Fix: free disk space."
        ) from error


def sync(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to the disk."""
    if sys.platform == "win32" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
