"""Trains a diffusion model: python scripts/train.py --data.folder PATH (see --help)."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the script works from a clone that is not installed

if __name__ == "__main__":
    from diffusion_framework.cli import train

    train(sys.argv[1:], default_config=ROOT / "configs" / "digits.yaml")
