"""Grids of pictures with what was asked for."""

from __future__ import annotations

import pytest
import torch

from diffusion_framework.storage.images import grid
from diffusion_framework.storage.labelled import labelled_grid, rgb

WORDS = ["a cat", "", "a very long text " * 20, "ein Bär\n\tfrisst 寿司", "x" * 300, "two words"]


def test_without_conditions_it_is_the_grid():
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(labelled_grid(images, columns=3), grid(images, 3))


@pytest.mark.parametrize("texts", [None, WORDS], ids=["pictures", "texts"])
@pytest.mark.parametrize("columns", [None, 2])
def test_each_image_stands_beside_its_condition(texts, columns):
    """Every cell holds the condition, enlarged, and then the image."""
    images, small = torch.rand(6, 3, 32, 32), torch.rand(6, 1, 8, 8)
    picture = labelled_grid(images, texts, (small,), columns)
    factor = 1 if texts is None else 2  # to at least 96 pixels
    width, height = 64 * factor, 32 * factor
    if columns is None:
        columns = (picture.shape[2] - 2) // (width + 2)
    cell = (picture.shape[1] - 2) // -(-6 // columns) - 2
    assert picture.shape == (3, -(-6 // columns) * (cell + 2) + 2, columns * (width + 2) + 2)
    for i in range(6):
        top, left = 2 + i // columns * (cell + 2), 2 + i % columns * (width + 2)
        shown = picture[:, top : top + height, left : left + width : factor][:, ::factor]
        assert torch.equal(shown[:, :, 32:], images[i])
        assert torch.equal(shown[:, ::4, :32:4], small[i].expand(3, -1, -1))
        below = picture[:, top + height : top + cell, left : left + width]
        assert (below.numel() > 0) == (texts is not None)
        if texts is not None:
            assert (below.min() < 0.5) == bool(texts[i]) and below.max() == 1
            assert (below[:, :, :2] == 1).all() and (below[:, :, -1] == 1).all(), "it fits"


def test_texts_wrap_into_lines_and_end_in_dots():
    one, two = (labelled_grid(torch.zeros(1, 1, 96, 96), [text]) for text in ("cat", "cat " * 12))
    assert 0 < two.shape[1] - one.shape[1] <= 24, "at most three lines"
    more = labelled_grid(torch.zeros(1, 1, 96, 96), ["cat " * 99])
    assert more.shape == labelled_grid(torch.zeros(1, 1, 96, 96), ["cat " * 98]).shape


def test_any_channels_are_shown_in_colour():
    grey, red = torch.full((1, 1, 1, 1), 0.2), torch.tensor([1.0, 0, 0, 0.5]).reshape(1, 4, 1, 1)
    assert rgb(grey).flatten().tolist() == pytest.approx([0.2] * 3)
    assert rgb(red).flatten().tolist() == [1, 0.5, 0.5], "over white"
    for channels in (2, 5):
        images = torch.rand(1, channels, 2, 2)
        first = images[:, :3] if channels == 5 else images[:, :1].expand(-1, 3, -1, -1)
        assert torch.equal(rgb(images), first)
