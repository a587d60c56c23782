"""The trained models that come with the package, by name."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "pretrained"


def pretrained_models() -> list[str]:
    """Returns the names of the models that come with the package."""
    return sorted(path.name for path in _FOLDER.iterdir() if path.is_dir())


def named_folder(path_or_name: str | os.PathLike[str]) -> Path:
    """Returns the folder of a packaged model for its name, unless a file has that name."""
    path = Path(path_or_name)
    if not os.path.lexists(path) and str(path_or_name) in pretrained_models():
        return _FOLDER / path
    return path
