import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_framework.storage.images import save_grid


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [(6, 3, (2, 3)), (6, 7, (2, 3)), (4, None, (2, 2)), (5, None, (2, 3))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_image_in_its_place(tmp_path, count, columns, shape, channels):
    images = torch.rand(count, channels, 50, 60)
    save_grid(images, tmp_path / "grid.png", columns)
    pixels = np.asarray(Image.open(tmp_path / "grid.png")).reshape(
        shape[0] * 52 + 2, shape[1] * 62 + 2, channels
    )
    expected = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index, image in enumerate(expected):
        top, left = 2 + index // shape[1] * 52, 2 + index % shape[1] * 62
        assert np.array_equal(pixels[top : top + 50, left : left + 60], image)
        pixels = pixels.copy()
        pixels[top : top + 50, left : left + 60] = 128
    assert set(np.unique(pixels)) == {128}, "grey between images and in empty places"


def test_small_images_are_enlarged(tmp_path):
    save_grid(torch.rand(1, 1, 8, 8), tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size == (52, 52)
