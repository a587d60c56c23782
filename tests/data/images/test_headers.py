"""Before training, the headers of images tell which are broken, small or grey."""

import time

import numpy as np
import pytest
from PIL import Image

from diffusion_framework import ImageFolder
from diffusion_framework.data.images.headers import header_notes, read_headers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of 28 x 28 pixels, half of them coloured, and files that are no images."""
    place = tmp_path_factory.mktemp("pictures")
    for i in range(8):
        Image.new(("L", "RGB")[i % 2], (28, 28), 9).save(place / f"{i}.png")
    (place / "cut.png").write_bytes((place / "0.png").read_bytes()[:20])
    (place / "empty.jpg").write_bytes(b"")
    return place


def test_broken_and_small_images_are_noted(folder):
    broken, small = ImageFolder(folder, 64).notes()
    assert broken == (
        "2 broken images, such as 'cut.png': training stops there, unless --data.broken skip"
    )
    assert small == (
        "all images are smaller, such as 28 x 28, and are enlarged "
        "(--diffusion.model.image_size 32 suits)"
    )
    (skipped,) = ImageFolder(folder, 16, broken="skip").notes()
    assert skipped == "2 broken images, such as 'cut.png': skipped"
    grey = ImageFolder(folder, 16).subset(np.array([0, 2, 4]))
    assert grey.notes() == ["all images are grey (--diffusion.model.channels 1 suits)"]
    assert ImageFolder(folder, 16, 1).subset(np.array([0, 2, 4])).notes() == []


def test_a_part_is_read_where_time_is_short(folder):
    """What the notes say then is said of that part."""
    data = ImageFolder(folder, 64)
    found = read_headers(data.folder, data.paths, seconds=0)
    assert found.seen == 1 and len(found.sizes) + len(found.broken) == 1
    (note, *_) = header_notes(found, len(data), (64, 64), 3, False)
    assert "among 1 file looked at" in note
    (mixed,) = header_notes(read_headers(data.folder, data.paths[:1]), 1, (64, 20), 1, False)
    assert mixed.startswith("all images are smaller, such as 28 x 28")


def test_headers_are_read_without_pixels(tmp_path):
    """A file of 3,000 x 3,000 pixels takes as long as a small one."""
    Image.fromarray(np.zeros((3000, 3000), np.uint8)).save(tmp_path / "large.png")
    began = time.perf_counter()
    for _ in range(20):
        assert read_headers(str(tmp_path), ["large.png"]).sizes == [(3000, 3000)]
    assert time.perf_counter() - began < 1
