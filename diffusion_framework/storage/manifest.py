"""The manifest of a checkpoint: the sizes and checksums of its files, sealed by a checksum."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .reading import read_file

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_MAX_BYTES = 1_000_000
_SEAL = ',\n "seal": "'
_END = "\n}"


class DamagedCheckpoint(ValueError):
    """A checkpoint whose files are not the ones that were written."""

    def __init__(self, path: Path, how: str) -> None:
        super().__init__(
            f"{path}: expected a complete checkpoint, got damage: {how}. "
            "Fix: use an older checkpoint, or copy this one again."
        )


@dataclass(frozen=True)
class Manifest:
    """Content of a manifest.

    Attributes:
        step: Number of optimizer steps done.
        files: Size in bytes and SHA-256 of each file, by name.
    """

    step: int
    files: Mapping[str, Mapping[str, Any]]


def manifest_text(step: int, files: Mapping[str, Mapping[str, Any]], torch_version: str) -> str:
    """Returns the text of a manifest, whose last line seals the lines before it."""
    content = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "torch": torch_version,
        "files": files,
    }
    return sealed(json.dumps(content, indent=1))


def sealed(text: str) -> str:
    """Adds the checksum of a JSON object's text to this text, as its last entry."""
    return f'{text.removesuffix(_END)}{_SEAL}{_checksum(text)}"{_END}'


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a checkpoint folder.

    Raises:
        DamagedCheckpoint: If the manifest is missing, or any byte of it was changed.
        ValueError: If the checkpoint was written by a newer version of this package.
        OSError: If the file exists but cannot be read, such as for lack of permission.
    """
    try:
        text = read_file(folder / MANIFEST, _MAX_BYTES).decode()
    except FileNotFoundError as error:
        raise DamagedCheckpoint(folder, f"it has no {MANIFEST}") from error
    except UnicodeDecodeError as error:
        raise DamagedCheckpoint(folder, f"{MANIFEST} is not text") from error
    content = text.rpartition(_SEAL)[0] + _END
    if text != sealed(content):
        raise DamagedCheckpoint(folder, f"the checksum of {MANIFEST} differs")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(folder, f"{MANIFEST} is not JSON") from error
    return _checked(folder, manifest)


def _checked(folder: Path, manifest: Any) -> Manifest:
    """Returns the content of a manifest whose seal holds, after a check of its form."""
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if type(version) is not int or not 1 <= version < 2**31:
        raise DamagedCheckpoint(folder, f"{MANIFEST} has no format_version")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{folder}: expected a checkpoint of format {FORMAT_VERSION} or lower, got format "
            f"{version}. Fix: upgrade diffusion_framework."
        )
    step, files = manifest.get("step"), manifest.get("files")
    if type(step) is not int or not 0 <= step < 2**63:
        raise DamagedCheckpoint(folder, f"{MANIFEST} has no step")
    named = re.fullmatch(r"step-(\d+)", folder.name)
    if named and int(named[1]) != step:
        raise DamagedCheckpoint(folder, f"{MANIFEST} is of step {step}")
    if not isinstance(files, dict):
        raise DamagedCheckpoint(folder, f"{MANIFEST} has no files")
    for name, file in files.items():
        if Path(name).name != name or "\0" in name:  # no path outside the folder may be read
            raise DamagedCheckpoint(folder, f"{MANIFEST} names the file {name!r:.60}")
        if (
            not isinstance(file, dict)
            or type(file.get("size")) is not int
            or not isinstance(file.get("sha256"), str)
        ):
            raise DamagedCheckpoint(folder, f"{MANIFEST} has no size and checksum of {name:.60}")
    return Manifest(step, files)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
