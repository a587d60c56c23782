"""Measures trained models.

    python scripts/evaluate.py RESULTS_FOLDER --data.folder PATH --likelihood

Options are described by --help.
"""

import sys
from pathlib import Path

# The script works from a clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from diffusion_framework.cli import evaluate

    evaluate(sys.argv[1:])
