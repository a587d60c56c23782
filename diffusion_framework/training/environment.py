"""What a run depends on besides its options: the code, PyTorch, and the number of processes."""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ..parts.table import PACKAGE

_FOLDER = Path(__file__).parents[1]


def environment() -> dict[str, Any]:
    """Returns the versions of the code and of PyTorch, and the number of processes."""
    return {
        "processes": PartialState().num_processes,
        PACKAGE: _code(),
        "torch": str(torch.__version__),
    }


@functools.cache
def _code() -> str:
    """Returns the version of this package, a hash of its sources, and its git revision."""
    try:
        found = [version(PACKAGE)]
    except PackageNotFoundError:  # run from a folder that is not installed
        found = []
    digest = hashlib.sha256()
    for file in sorted(_FOLDER.rglob("*.py")):
        digest.update(file.read_bytes())
    found.append(f"sources {digest.hexdigest()[:8]}")
    if revision := _revision(_FOLDER.parent / ".git"):
        found.append(f"revision {revision[:12]}")
    return " ".join(found)


def _revision(git: Path) -> str | None:
    """Returns the commit that is checked out, read from git's files; None outside repositories."""
    try:
        if git.is_file():  # of a worktree
            git = git.parent / git.read_text(encoding="utf-8").removeprefix("gitdir: ").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        name, common = head.removeprefix("ref: "), git / "commondir"
        shared = git / common.read_text(encoding="utf-8").strip() if common.exists() else git
        if (shared / name).exists():
            return (shared / name).read_text(encoding="utf-8").strip()
        packed = (shared / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next(line.split()[0] for line in packed if line.endswith(f" {name}"))
    except (OSError, ValueError, StopIteration):
        return None
