"""Tests of crops, the residual network without batch norm, and the spatial softmax."""

import pytest
import torch

from diffusion_framework.conditions import Observations
from diffusion_framework.conditions.image_features import SpatialSoftmax, center_crop, random_crop


def test_spatial_softmax_finds_a_bright_point():
    layer = SpatialSoftmax(1, 1)
    torch.nn.init.constant_(layer.conv.weight, 100.0)
    image = torch.zeros(2, 1, 5, 9)
    image[0, 0, 1, 8] = image[1, 0, 4, 2] = 1
    torch.testing.assert_close(layer(image), torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))


def test_crops_are_random_or_central_parts_of_the_image():
    image = torch.arange(2 * 36.0).reshape(2, 1, 6, 6)
    seen = set()
    for _ in range(200):
        cut = random_crop(image, 4, repeat=2)
        top, left = divmod(int(cut[0, 0, 0, 0]), 6)
        assert torch.equal(cut, image[:, :, top : top + 4, left : left + 4])  # for both images
        seen.add((top, left))
    assert len(seen) == 9
    apart = [tuple(int(c[0, 0, 0]) % 36 for c in random_crop(image, 4)) for _ in range(30)]
    assert any(a != b for a, b in apart)
    assert torch.equal(center_crop(image, 4), image[:, :, 1:5, 1:5])
    with pytest.raises(ValueError, match=r"Expected crop in \[1, 8\], .*, got 9. Fix"):
        center_crop(torch.zeros(1, 3, 8, 8), 9)


def test_features_do_not_depend_on_the_batch():
    observations = Observations(images={"camera": 1}, keypoints=5, crop=40).eval()
    pixels = torch.randint(0, 256, (3, 2, 1, 48, 48), dtype=torch.uint8)
    context = observations({"camera": pixels})["context"]
    assert context.shape == (3, 2, 10)
    torch.testing.assert_close(
        observations({"camera": pixels[1:2]})["context"], context[1:2], atol=1e-5, rtol=0
    )
    assert not any("BatchNorm" in type(module).__name__ for module in observations.modules())
    with pytest.raises(ValueError, match="residual network of torchvision"):
        Observations(images={"camera": 3}, backbone="vgg11")
