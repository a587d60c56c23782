import os
import sys
from pathlib import Path

import pytest
import torch

# The networks are tiny: more threads would gain nothing, and wait for each other on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"  # of the scripts that tests start
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.path.append(str(Path(__file__).parents[1] / "scripts"))  # for soak, which starts and ends processes


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
