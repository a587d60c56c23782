"""Fresh virtual environments of scripts that install packages, and their JSON of results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


@contextmanager
def environment(python: str) -> Iterator[Path]:
    """Yields the interpreter of a virtual environment that is deleted afterwards."""
    with TemporaryDirectory(prefix="environment") as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        yield Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def installed(python: Path) -> dict[str, str]:
    """Returns the versions of the packages of an environment, without pip and setuptools."""
    command = [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        package["name"]: package["version"]
        for package in listed
        if package["name"] not in ("pip", "setuptools")
    }


class Results:
    """Rows by name in a JSON file, written after each row; a restart goes on after the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Adds a row and writes the file."""
        self.rows[name] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n")
