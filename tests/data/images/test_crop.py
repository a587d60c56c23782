"""Cropping, resizing and conversion to tensors."""

import numpy as np
import pytest
import torch
from grey_images import pixels
from PIL import Image

from diffusion_framework.data import ImageFolder, decode_image
from diffusion_framework.data.images.resize import crop_and_resize, to_tensor


@pytest.mark.parametrize("shape", [(1, 9000), (9000, 1)])
def test_a_thin_image_is_cropped_before_it_is_resized(tmp_path, shape):
    Image.fromarray(np.full(shape, 77, np.uint8)).save(tmp_path / "a.png")
    small = crop_and_resize(decode_image(tmp_path / "a.png", 1), (64, 64))
    assert small.size == (64, 64)
    assert small.getextrema() == (77, 77)


def test_a_crop_without_resizing_copies_pixels(photo):
    image = Image.fromarray(photo)  # height 96: only the width is cropped
    np.testing.assert_array_equal(crop_and_resize(image, (96, 60), (0.5, 0.0)), photo[:, :60])
    np.testing.assert_array_equal(
        crop_and_resize(image, (96, 60), (0.5, 0.999999)), photo[:, 99:159]
    )
    np.testing.assert_array_equal(crop_and_resize(image, (96, 60)), photo[:, 50:110])


@pytest.mark.parametrize("position", [(0, 0), (0.3, 0.7), (1, 1)])
def test_every_size_can_be_cropped_to_every_other(position):
    rng = np.random.default_rng(0)
    for width, height, *size in rng.integers(1, 200, (200, 4)).tolist():
        assert crop_and_resize(
            Image.new("L", (width, height)), tuple(size), position
        ).size == tuple(size[::-1])


def test_resizing_is_antialiased():
    checks = np.indices((256, 256)).sum(0) % 2 * 255  # without antialiasing, all black or all white
    small = pixels(crop_and_resize(Image.fromarray(checks.astype(np.uint8)), (16, 16)))
    assert np.abs(small - 127.5).max() < 3


def test_tensors_are_channels_first_and_contiguous(photo):
    tensor = to_tensor(Image.fromarray(photo))
    assert tensor.shape == (3, 96, 160)
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), photo)


def test_decoding_at_reduced_scale_is_close_to_full_scale(tmp_path, photo):
    large = Image.fromarray(photo).resize((1600, 960), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.jpg", quality=95)
    full = decode_image(tmp_path / "a.jpg")
    reduced = decode_image(tmp_path / "a.jpg", at_least=(64, 64))
    assert reduced.width < full.width
    assert min(reduced.size) >= 2 * 64
    both = [pixels(crop_and_resize(image, (64, 64))) for image in (full, reduced)]
    assert np.abs(both[0] - both[1]).mean() < 1
    assert np.abs(both[0] - both[1]).max() < 12


@pytest.mark.parametrize("size", [(64, 64), (32, 100), (100, 20), (333, 7), (7, 333)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_scale_keeps_twice_the_requested_size(tmp_path, photo, size, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photo).resize((1501, 977)).save(tmp_path / "a.jpg", exif=exif)
    full = decode_image(tmp_path / "a.jpg")
    reduced = decode_image(tmp_path / "a.jpg", at_least=size)
    crop = min(reduced.height / size[0], reduced.width / size[1])
    assert reduced.size == full.size or crop >= 2


def test_folders_decode_large_jpegs_at_reduced_scale(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    reduced = crop_and_resize(decode_image(tmp_path / "a.jpg", 1, at_least=(16, 16)), (16, 16))
    full = crop_and_resize(decode_image(tmp_path / "a.jpg", 1), (16, 16))
    assert torch.equal(ImageFolder(tmp_path, 16, 1)[0], to_tensor(reduced))
    assert not torch.equal(to_tensor(full), to_tensor(reduced))


def test_the_center_crop_is_the_same_in_every_epoch(wide):
    dataset = ImageFolder(wide, 20, 1)
    assert dataset.draw(0, 0)[0, 0].tolist() == list(range(90, 110))
    assert torch.equal(dataset.draw(0, 0), dataset.draw(0, 7))


def test_random_crops_are_a_function_of_seed_index_and_epoch(wide):
    for i in range(3):
        (wide / f"copy{i}.png").write_bytes((wide / "wide.png").read_bytes())
    dataset, repeated = (ImageFolder(wide, 20, 1, crop="random", seed=5) for _ in range(2))
    seen = [dataset.draw(i, epoch) for i in range(4) for epoch in range(4)]
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - global seeds must not matter
    again = [repeated.draw(i, epoch) for i in reversed(range(4)) for epoch in reversed(range(4))]
    assert all(torch.equal(one, two) for one, two in zip(seen, reversed(again), strict=True))
    lefts = [int(image[0, 0, 0]) for image in seen]
    assert len(set(lefts)) > 10
    assert all(0 <= left <= 180 for left in lefts)
    other = ImageFolder(wide, 20, 1, crop="random", seed=6)
    assert not torch.equal(
        torch.stack(seen), torch.stack([other.draw(i, e) for i in range(4) for e in range(4)])
    )


def test_random_crops_are_uniform_over_the_image(wide):
    dataset = ImageFolder(wide, 20, 1, crop="random")
    lefts = np.array([int(dataset.draw(0, epoch)[0, 0, 0]) for epoch in range(300)])
    assert lefts.min() < 10
    assert lefts.max() > 170
    # five standard errors of the mean of a uniform distribution
    assert abs(lefts.mean() - 90) < 5 * (180 / 12**0.5) / 300**0.5
