"""Measure trained models: python scripts/evaluate.py RESULTS_FOLDER --data.folder PATH --likelihood
(see --help).
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # works from a clone that is not installed

if __name__ == "__main__":
    from diffusion_framework.cli import evaluate

    evaluate(sys.argv[1:])
