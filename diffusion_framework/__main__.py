"""The program `diffusion`, also `python -m diffusion_framework`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the program with the words of the command line."""
    from .cli.program import run_program

    typed = os.path.basename(sys.argv[0]) != "__main__.py"
    run_program(sys.argv[1:], "diffusion" if typed else "python -m diffusion_framework")


if __name__ == "__main__":
    main()
