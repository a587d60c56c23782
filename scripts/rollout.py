"""Let a trained policy act: python scripts/rollout.py RUN --env gym_pusht/PushT-v0 (see --help)."""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # works from a clone that is not installed

if __name__ == "__main__":
    from diffusion_framework.cli import rollout

    rollout(sys.argv[1:])
