"""Images for the tests of image datasets."""

from pathlib import Path

import numpy as np
import pytest
from grey_images import save
from PIL import Image


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth image without symmetries, [96, 160, 3]."""
    y, x = np.mgrid[0:96, 0:160]
    waves = [np.sin(x / 17 + y / 40), np.cos(y / 13), np.sin(x * y / 2500)]
    return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


@pytest.fixture
def wide(tmp_path) -> Path:
    """A folder with one image, 200 x 20 pixels, whose column i has the value i."""
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (20, 1))).save(tmp_path / "wide.png")
    return tmp_path


@pytest.fixture
def half_broken(tmp_path) -> Path:
    """A folder of six images: 0 and 3 are broken; 1, 2, 4 and 5 have the values 10, 20, 40, 50."""
    for i in range(6):
        save(tmp_path / f"{i}.png", 10 * i)
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])
    return tmp_path
