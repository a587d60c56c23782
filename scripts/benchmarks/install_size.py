"""Measures what a new user installs: seconds, megabytes and packages, beside other libraries.

    python scripts/benchmarks/install_size.py results/install_size.json

pip installs each library into a fresh environment, which is deleted afterwards. PyTorch alone is
the first row, so that the others can be read beside it. Seconds depend on the network and on pip's
cache. A restart goes on after the last library.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from environments import Results, environment, installed

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = {
    "PyTorch alone": ["torch", "torchvision"],
    "diffusion-framework": [str(ROOT)],
    "diffusion-framework[all]": [f"{ROOT}[all]"],
    "diffusers": ["diffusers[torch]", "torchvision"],
    "denoising-diffusion-pytorch": ["denoising-diffusion-pytorch"],
}


def measure(requirements: list[str], python: str) -> dict[str, object]:
    """Installs requirements and returns the figures."""
    with environment(python) as inside:
        began = time.perf_counter()
        subprocess.run([inside, "-m", "pip", "install", "--quiet", *requirements], check=True)
        seconds = time.perf_counter() - began
        packages = installed(inside)
        folders = inside.parents[1].rglob("site-packages")
        size = sum(
            path.lstat().st_size
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file() and path.relative_to(folder).parts[0] not in ("pip", "setuptools")
        )
    return {
        "seconds": round(seconds, 1),
        "megabytes": round(size / 1e6),
        "packages": len(packages),
        "versions": packages,
    }


def main() -> None:
    """Measures all libraries that the file does not have yet, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("results", type=Path, help="JSON file of the results")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments")
    options = parser.parse_args()
    results = Results(options.results)
    for name, requirements in LIBRARIES.items():
        if name not in results.rows:
            results.add(name, measure(requirements, options.python))
        row = results.rows[name]
        print(
            f"{name:28} {row['seconds']:7} s {row['megabytes']:6} MB {row['packages']:4} packages"
        )


if __name__ == "__main__":
    main()
