"""Folders of images with a second picture for each: pairs of the same names, and smaller copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from grey_images import save
from PIL import Image
from runs import assert_same_run
from toys import QUIET, Plain

from diffusion_framework import GaussianDiffusion, ImageFolder, Trainer
from diffusion_framework.conditions import Images
from diffusion_framework.data.loading.cache import CachedImages, DecodedImages, file_in_memory
from diffusion_framework.data.loading.cache_file import ImageCache
from diffusion_framework.data.loading.handover import collate
from diffusion_framework.training import Loading


def picture(seed, size=(12, 9), bits=8):
    high, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    return np.random.default_rng(seed).integers(0, high, size[::-1], dtype=dtype)


@pytest.fixture
def folders(tmp_path):
    """Six pictures, and for each its negative of twice the size as another kind of file."""
    for i in range(6):
        path = tmp_path / "one" / "ab"[i % 2] / f"{i}.png"
        other = tmp_path / "two" / "ab"[i % 2] / f"{i}.bmp"
        for place in (path, other):
            place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i)).save(path)
        large = (255 - picture(i)).repeat(2, 0).repeat(2, 1)
        Image.fromarray(large).save(other)
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.parametrize("crop", ["center", "random"])
def test_a_pair_is_cropped_like_its_picture(folders, crop):
    one, two = folders
    data = ImageFolder(one, 6, 1, pairs=two, crop=crop)
    alone = ImageFolder(one, 6, 1, crop=crop)
    positions = set()
    for epoch in range(4):
        for index in range(6):
            image, told = data.draw(index, epoch)
            assert torch.equal(image, alone.draw(index, epoch))
            off = (255 - image.int() - told["image"].int()).float()
            assert off.abs().mean() < 12, "the negative, up to the rounding of another size"
            positions.add(bytes(image.numpy()))
    assert len(positions) == (6 if crop == "center" else 24)
    assert "each with a second image" in data.describe()


def test_a_pair_may_have_other_channels_and_an_ending_of_its_own(folders):
    one, two = folders
    image, told = ImageFolder(one, 6, 3, pairs=two, pair_channels=1)[3]
    assert image.shape == (3, 6, 6) and told["image"].shape == (1, 6, 6)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_copy_is_the_picture_shrunk_by_pillow(tmp_path, bits):
    values = picture(0, (16, 16), bits)
    Image.fromarray(values).save(tmp_path / "0.png")
    image, told = ImageFolder(tmp_path, 16, 1, low_resolution=4)[0]
    assert (image[0].numpy() == values).all() and told["image"].dtype == image.dtype
    shrunk = Image.fromarray(values.astype(np.uint8 if bits == 8 else np.float32)).resize(
        (4, 4), Image.Resampling.BICUBIC
    )
    assert (told["image"][0].numpy() == np.rint(np.asarray(shrunk))).all()
    assert ImageFolder(tmp_path, 16, low_resolution=(2, 4))[0][1]["image"].shape == (3, 2, 4)


OPTIONS = [{"pairs": True}, {"low_resolution": 3}, {"pairs": True, "labels": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=["pairs", "copies", "pairs and labels"])
@pytest.mark.parametrize("broken", [False, True], ids=["good images", "a broken pair"])
def test_pairs_follow_their_images_through_every_way_of_loading(folders, options, broken):
    one, two = folders
    if broken:
        (two / "a" / "2.bmp").write_bytes(b"no image")
    if options.get("pairs"):
        options = {**options, "pairs": two}
    data = ImageFolder(one, 6, 3, broken="skip", **options)
    order = np.array([4, 1, 0, 1])
    with file_in_memory() as path:
        cached = CachedImages(data, ImageCache(path, len(data), data.row_shape))
        expected = collate([data[i] for i in order])
        taken = [cached.take(order) for _ in range(2)]
        cached.take(np.arange(6))
        assert cached.cache.full()
        taken.append(DecodedImages(cached, torch.device("cpu")).take(order))
        taken.append(collate([cached.draw(int(i), 0) for i in order]))
    if not broken:
        taken.append(data.subset(order).take(np.arange(4)))
    for images, told in taken:
        assert torch.equal(images, expected[0]) and told.keys() == expected[1].keys()
        assert all(torch.equal(told[name], expected[1][name]) for name in told)


def test_fingerprint_and_version_follow_the_pairs(folders):
    one, two = folders
    make = lambda: ImageFolder(one, 6, pairs=two)  # noqa: E731
    before = make().fingerprint(), make().version()
    assert before[0] != ImageFolder(one, 6).fingerprint()
    (two / "a" / "0.bmp").rename(two / "a" / "0.png")
    assert make().fingerprint() != before[0] and make().version() != before[1]


def test_wrong_pairs_are_named(folders, tmp_path):
    one, two = folders
    save(tmp_path / "other" / "x.png")

    def refused(message, pairs=two, **options):
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            ImageFolder(one, 6, pairs=pairs, **options)
        assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)

    refused("'x.png' among 1 and 'a/0.png' among 6, and none in common", tmp_path / "other")
    refused("Expected an existing folder", tmp_path / "missing")
    refused("Expected another folder for the pairs", one)
    refused("Expected pairs or low_resolution", low_resolution=3)
    refused("low_resolution of 1 to 6 .* got 7", None, low_resolution=7)
    save(two / "a" / "0.png")
    refused("one pair for each picture in .*, got 'a/0.bmp' and 'a/0.png' in")
    (two / "a" / "0.png").unlink()
    for name in ("a/2.bmp", "b/5.bmp"):
        (two / name).unlink()
    refused(r"a pair for each of 6 pictures in .*, got none for 'a/2.png' \(and 1 more\)\. Fix")


def test_pictures_without_a_first_are_counted(folders):
    one, two = folders
    save(two / "a" / "9.png")
    assert any(
        "1 second image without a first" in n for n in ImageFolder(one, 6, pairs=two).notes()
    )


class Told(Plain):
    def forward(self, x, time, image):
        return self.conv(x + image)


def run(folder, steps, data, workers, cache):
    torch.manual_seed(0)
    model = GaussianDiffusion(Told(), conditions={"image": Images(1)}, timesteps=2)
    options = {"train_batch_size": 4, "num_samples": 2, "save_and_sample_every": 3, **QUIET}
    options["loading"] = Loading(workers, cache)
    return Trainer(model, data, results_folder=folder, train_num_steps=steps, **options)


def test_a_run_with_pairs_resumes_exactly_whatever_loads_them(folders, tmp_path):
    one, two = folders
    data = ImageFolder(one, 4, 1, pairs=two)
    run(tmp_path / "whole", 6, data, 0, "off").train()
    run(tmp_path / "cut", 3, data, 1, "memory").train()
    with pytest.warns(UserWarning, match="train_num_steps"):
        run(tmp_path / "cut", 6, data, 1, "memory").train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
