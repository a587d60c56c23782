"""Images of more than 8 bits: scaled to one range, kept at 16 bits, refused outside their range."""

import warnings

import numpy as np
import pytest
import torch
from grey_images import pixels
from PIL import Image

from diffusion_framework.data import BrokenImageError, ImageFolder, decode_image
from diffusion_framework.data.images.deep import ValueRangeError, scale_values, to_eight_bits
from diffusion_framework.data.images.resize import to_tensor


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "big_endian.tif"])
def test_16_bit_values_are_scaled_not_clipped(tmp_path, name):
    ramp = np.arange(0, 65536, 16, dtype=">u2" if "big" in name else "<u2").reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / name)
    grey = pixels(decode_image(tmp_path / name, 1)).ravel()
    assert len(np.unique(grey)) > 200
    assert (np.diff(grey) >= 0).all()
    np.testing.assert_allclose(grey, ramp.ravel() / 257, atol=0.51)


def test_12_bit_values_fill_the_8_bit_range():
    ramp = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    assert to_eight_bits(ramp, None, 12).getextrema() == (0, 255)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-1, 1), (-7, 3), (0, 1e4)])
def test_float_values_are_scaled_from_the_given_range(tmp_path, low, high):
    ramp = np.linspace(low, high, 1024, dtype=np.float32).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    value_range = None if (low, high) == (0, 1) else (low, high)
    grey = pixels(decode_image(tmp_path / "a.tif", 1, value_range=value_range)).ravel()
    np.testing.assert_allclose(grey, np.linspace(0, 255, 1024), atol=0.51)
    half = pixels(decode_image(tmp_path / "a.tif", 1, value_range=(low, 2 * high - low))).ravel()
    np.testing.assert_allclose(half, np.linspace(0, 127.5, 1024), atol=0.51)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_out_of_range_are_refused_not_scaled_per_image(tmp_path, dtype):
    values = np.array([[0, 2**20], [-5, 7]]).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.tif")
    end = "1" if dtype is np.float32 else "65535"
    message = rf"'.*a.tif': Expected values in \[0, {end}\].* got -5 to 1.0.*--data.value_range"
    with pytest.raises(ValueRangeError, match=message) as error:
        decode_image(tmp_path / "a.tif", 1)
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, BrokenImageError)  # broken='skip' does not skip it
    assert decode_image(tmp_path / "a.tif", 1, value_range=(-5, 2**20)).getextrema() == (0, 255)


def test_nan_changes_only_its_own_pixel():
    values = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    clean = scale_values(Image.fromarray(values))
    values[0, 0], values[3, 3] = np.nan, np.inf  # the ends of the range
    np.testing.assert_array_equal(scale_values(Image.fromarray(values)), clean)
    assert (scale_values(Image.new("F", (2, 2), np.nan)) == 0).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_keep_every_value(tmp_path, channels):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    kept = to_tensor(decode_image(tmp_path / "a.png", channels, bits=16), channels, bits=16)
    assert kept.dtype == torch.uint16 and kept.shape == (channels, 256, 256)
    for colour in kept[:3]:
        np.testing.assert_array_equal(colour.numpy(), ramp)
    assert channels < 4 or (kept[3].numpy() == 65535).all()
    plain = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    np.testing.assert_array_equal(
        to_tensor(plain, 1, bits=16).numpy()[0], np.arange(256).reshape(16, 16) * 257
    )


def test_a_transparent_16_bit_value_becomes_the_background(tmp_path):
    image = Image.new("I;16", (2, 1), 1000)
    image.putpixel((0, 0), 9)
    image.save(tmp_path / "a.png", transparency=9)
    kept = to_tensor(decode_image(tmp_path / "a.png", 1, (60, 60, 60), bits=16), 1, bits=16)
    assert kept.numpy().tolist() == [[[60 * 257, 1000]]]


def test_a_folder_of_deep_images_keeps_its_depth_on_one_scale(tmp_path):
    """The first image sets the depth; 8-bit images after it keep their brightness."""
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp // 2).save(tmp_path / "b.png")
    Image.fromarray((ramp // 256).astype(np.uint8)).save(tmp_path / "c.png")
    folder = ImageFolder(tmp_path, 16, 1)
    assert folder.bits == 16
    for image, expected in zip(folder, (ramp, ramp // 2, (ramp // 256) * 257), strict=False):
        assert image.dtype == torch.uint16
        np.testing.assert_array_equal(image[0].numpy(), expected)
    flat = ImageFolder(tmp_path, 16, 1, bits=8)
    assert flat.bits == 8 and flat[0].dtype == torch.uint8
    np.testing.assert_allclose(flat[1][0].numpy(), ramp / 2 / 257, atol=0.51)
    halved = ImageFolder(tmp_path, 16, 1, value_range=(0, 131070))
    np.testing.assert_allclose(halved[0][0].numpy(), ramp / 2, atol=0.51)
    smaller = ImageFolder(tmp_path, 8, 1)[0]
    assert smaller.dtype == torch.uint16 and abs(smaller.float().mean() - ramp.mean()) < 20


def test_a_deep_image_after_an_8_bit_one_is_an_error(tmp_path):
    Image.new("L", (8, 8), 3).save(tmp_path / "a.png")
    Image.new("I;16", (8, 8), 40000).save(tmp_path / "b.png")
    folder = ImageFolder(tmp_path, 8, 1)
    assert folder.bits == 8 and folder[0].dtype == torch.uint8
    with pytest.raises(
        ValueError,
        match="Expected images of 8 bits, .*got more bits in .*[.]png.*. Fix: set --data.bits 16",
    ):
        folder[1]
    with pytest.raises(ValueError, match=r"Expected value_range to rise, got \(1, 0\)"):
        ImageFolder(tmp_path, 8, 1, value_range=(1, 0))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_12_bit_values_in_16_bits_cause_one_warning_until_their_range_is_given(tmp_path, name):
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / name)
    with pytest.warns(UserWarning, match="will look dark"):
        assert ImageFolder(tmp_path, 64, 1, bits=8)[0].max() == 16
    folder = ImageFolder(tmp_path, 64, 1)
    with pytest.warns(UserWarning, match="only 0.0625 of the range .*--data.value_range lo,hi"):
        assert np.array_equal(folder[0][0].numpy(), ramp), "the values stay as they are"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder[0]
        whole = ImageFolder(tmp_path, 64, 1, value_range=(0, 4095))[0][0].numpy()
        np.testing.assert_allclose(whole, ramp * (65535 / 4095), atol=0.51)
        Image.fromarray(ramp * 16).save(tmp_path / name)
        ImageFolder(tmp_path, 64, 1)[0]
