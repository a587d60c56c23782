import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# More threads do not speed up tiny networks, and wait for each other on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"  # for the scripts that tests start
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent / "support"))
# for the modules soak and fuzz
sys.path.append(str(Path(__file__).parents[1] / "scripts" / "benchmarks"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def ten_images(tmp_path):
    """A folder of ten grey images of noise."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (12, 9), dtype=np.uint8)).save(folder / f"{i}.PNG")
    return folder
