"""Samples images from a checkpoint: python scripts/sample.py RESULTS_FOLDER (see --help)."""

import sys
from pathlib import Path

# The script works from a clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from diffusion_framework.cli import sample

    sample(sys.argv[1:])
