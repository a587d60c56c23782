"""Evaluates a trained policy in an environment.

    python scripts/rollout.py RUN --env gym_pusht/PushT-v0

Options are described by --help.
"""

import sys
from pathlib import Path

# The script works from a clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from diffusion_framework.cli import rollout

    rollout(sys.argv[1:])
