"""Sealed folders: files written aside, then a manifest with their sizes and checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..parts import write_yaml

FORMAT_VERSION = 1


def write_sealed(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    state: Mapping[str, Any],
) -> None:
    """Makes a folder with all files of a checkpoint, the manifest last, and has them reach the disk."""
    folder.mkdir()
    for name, group in tensors.items():
        _save_tensors(group, folder / f"{name}.safetensors")
    (folder / "config.yaml").write_text(write_yaml(dict(config)))
    (folder / "state.json").write_text(json.dumps(state, indent=1))
    files = {file.name: {"size": file.stat().st_size, "sha256": _sha256(file)} for file in sorted(folder.iterdir())}
    manifest = {"format_version": FORMAT_VERSION, "step": step, "torch": str(torch.__version__), "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for path in (*folder.iterdir(), folder):
        sync(path)


def _save_tensors(group: Mapping[str, Tensor], path: Path) -> None:
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in group.items()}
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # a full disk, among other things
        raise OSError(f"{path} could not be written ({error}); the checkpoints before it are whole") from error


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, reach the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
