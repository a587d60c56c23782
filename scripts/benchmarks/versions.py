"""Runs the tests with the lowest and the newest allowed versions of all dependencies.

    python scripts/benchmarks/versions.py results/versions.json
    python scripts/benchmarks/versions.py results/versions.json --runs lowest-3.10 newest-3.13 \
        --tests tests/process tests/samplers

Needs uv (`pip install uv`) and the interpreters, which uv finds on the PATH. Lowest means the lower
bounds of pyproject.toml, also of the extras and the tools of the tests; other packages are the
newest that fit. Each environment takes about 6 GB and is deleted afterwards. The file gets the
versions, and the outcome of the tests, of each finished run; a restart goes on after the last.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from environments import Results

ROOT = Path(__file__).resolve().parents[2]
RUNS = {
    "lowest-3.10": ("3.10", "lowest-direct"),
    "newest-3.10": ("3.10", "highest"),
    "newest-3.11": ("3.11", "highest"),
    "newest-3.12": ("3.12", "highest"),
    "newest-3.13": ("3.13", "highest"),
}


def uv(*words: str | Path) -> str:
    """Runs uv in the project and returns what it prints."""
    done = subprocess.run(["uv", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def run(version: str, resolution: str, tests: list[str]) -> dict[str, object]:
    """Installs one set of versions, runs the tests and returns the figures."""
    with TemporaryDirectory(prefix="versions") as folder:
        home, pins = Path(folder, "environment"), Path(folder, "pins.txt")
        uv("venv", "--quiet", "--python", version, home)
        python = home / "bin" / "python"
        compiled = ("--extra", "dev", "--resolution", resolution, "--python", python)
        uv("pip", "compile", "--quiet", "pyproject.toml", *compiled, "-o", pins)
        began = time.perf_counter()
        uv("pip", "install", "--quiet", "--python", python, "-r", pins)
        uv("pip", "install", "--quiet", "--python", python, "-c", pins, "tomli", "pip")
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        done = subprocess.run(
            [python, "-m", "pytest", "--tb=line", "-p", "no:cacheprovider", *tests],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines()
        return {
            "install_seconds": round(seconds),
            "test_seconds": round(time.perf_counter() - began),
            "exit_code": done.returncode,
            "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
            "last_line": lines[-1] if lines else done.stderr[-500:],
            "versions": uv("pip", "freeze", "--python", python).split(),
        }


def main() -> None:
    """Does all runs that the file does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("results", type=Path, help="JSON file of the results")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=[*RUNS], help="which runs")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files or folders of tests")
    options = parser.parse_args()
    results = Results(options.results)
    for name in options.runs:
        if name not in results.rows:
            tests = [*options.tests, "--deselect", "tests/test_code_style.py"]
            results.add(name, {"tests": options.tests, **run(*RUNS[name], tests)})
        row = results.rows[name]
        print(f"{name}: {row['last_line']}", *row["failed"], sep="\n  ")


if __name__ == "__main__":
    main()
