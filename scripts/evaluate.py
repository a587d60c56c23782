"""Measures trained models: `diffusion evaluate`."""

import sys
from pathlib import Path

# The script works from a clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from diffusion_framework.cli.program import run_command

    run_command("evaluate", sys.argv[1:], "python scripts/evaluate.py")
