"""Many-channel TIFF files, and colours of more than 8 bits, keep every value."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from toys import QUIET, Plain

from diffusion_framework import GaussianDiffusion, ImageFolder, Trainer
from diffusion_framework.data import BrokenImageError, decode_image
from diffusion_framework.data.images.deep import ValueRangeError
from diffusion_framework.data.images.planes import (
    decode_planes,
    needs_planes,
    planes_to_tensor,
)
from diffusion_framework.data.images.resize import to_tensor

tifffile = pytest.importorskip("tifffile", reason="TIFF files of many channels need tifffile")
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> number in the header of PNG


def values(channels, dtype, size=(6, 9)):
    """Values that fill the range of a type, [channels, height, width]."""
    ramp = np.linspace(0, 1, channels * size[0] * size[1])
    np.random.default_rng(0).shuffle(ramp)
    scale = 1 if dtype == "float32" else np.iinfo(dtype).max
    return (ramp * scale).astype(dtype).reshape(channels, *size)


def write_png(path, pixels):
    """Writes uint16 or uint8 values [channels, height, width] as a PNG file."""
    channels, height, width = pixels.shape
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).astype(pixels.dtype.newbyteorder(">"))
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, COLOUR_TYPES[channels], 0, 0, 0
    )
    parts = [
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"".join(b"\0" + r.tobytes() for r in rows))),
    ]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in [*parts, (b"IEND", b"")]:
            check = struct.pack(">I", zlib.crc32(kind + data))
            file.write(struct.pack(">I", len(data)) + kind + data + check)


@pytest.mark.parametrize("layout", ["contig", "separate", "pages"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [2, 5])
def test_a_folder_of_tiff_files_of_many_channels(tmp_path, channels, dtype, layout):
    stored = values(channels, dtype)
    options = {"photometric": "minisblack"}
    if layout == "contig":
        tifffile.imwrite(tmp_path / "a.tif", stored.transpose(1, 2, 0), **options, planarconfig=1)
    elif layout == "separate":
        tifffile.imwrite(tmp_path / "a.tif", stored, **options, planarconfig=2)
    else:
        tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    folder = ImageFolder(tmp_path, (6, 9), channels)
    image = folder[0]
    assert folder.bits == (8 if dtype == "uint8" else 16)
    assert image.dtype == (torch.uint8 if dtype == "uint8" else torch.uint16)
    scale = 65535 if dtype == "float32" else 1
    assert np.array_equal(image.numpy(), np.rint(stored * float(scale)))
    eight = ImageFolder(tmp_path, (6, 9), channels, bits=8)[0]
    assert eight.dtype == torch.uint8
    assert (
        np.abs(eight.numpy() - stored * {"uint8": 1, "uint16": 1 / 257}.get(dtype, 255)).max()
        < 0.51
    )
    assert ImageFolder(tmp_path, (3, 3), channels, fit="pad")[0].shape == (channels, 3, 3)


def test_a_network_of_many_channels_trains_on_them(tmp_path, tmp_path_factory):
    stored = values(5, "uint16", (4, 4))
    for i in range(4):
        tifffile.imwrite(tmp_path / f"{i}.tif", stored, photometric="minisblack")
    options = {"train_batch_size": 2, "train_num_steps": 1, "num_samples": 1, **QUIET}
    model, data = GaussianDiffusion(Plain(5), timesteps=2), ImageFolder(tmp_path, 4, 5)
    Trainer(model, data, results_folder=tmp_path_factory.mktemp("run"), **options).train()
    seen = model.encode(data[0][None], {})[0]
    torch.testing.assert_close(seen, torch.from_numpy(stored / 65535 * 2 - 1).float())


def test_one_scale_holds_for_all_channels_and_files(tmp_path):
    low, high = -40.0, 60.0
    for i, part in enumerate((values(3, "float32") * 0.1, values(3, "float32"))):
        tifffile.imwrite(tmp_path / f"{i}.tif", part * (high - low) + low, photometric="rgb")
    with pytest.raises(
        ValueRangeError, match=r"'.*0.tif': Expected values in \[0, 1\].*value_range"
    ):
        ImageFolder(tmp_path, (6, 9), 3)[0]
    eight = ImageFolder(tmp_path, (6, 9), 3, value_range=(low, high), bits=8)[1]
    np.testing.assert_allclose(eight.numpy(), values(3, "float32") * 255, atol=0.51)
    folder = ImageFolder(tmp_path, (6, 9), 3, value_range=(low, high))
    for i, scale in ((0, 0.1), (1, 1.0)):
        expected = values(3, "float32").astype(float) * scale * 65535
        np.testing.assert_allclose(folder[i].numpy(), expected, atol=0.6)


@pytest.mark.parametrize("largest", [1000, 4095, 65535])
def test_colours_of_binary_ppm_files_keep_their_depth(tmp_path, largest):
    stored = np.rint(values(3, "float32") * largest).astype(">u2").transpose(1, 2, 0)
    header = f"P6\n# a comment\n9 6\n{largest}\n".encode()
    (tmp_path / "a.ppm").write_bytes(header + stored.tobytes())
    folder = ImageFolder(tmp_path, (6, 9), 3)
    assert folder.bits == 16 and folder[0].dtype == torch.uint16
    expected = stored.transpose(2, 0, 1) * (65535 / largest)
    np.testing.assert_allclose(folder[0].numpy(), expected, atol=0.51)
    eight = ImageFolder(tmp_path, (6, 9), 3, bits=8)[0]
    np.testing.assert_allclose(eight.numpy(), expected / 257, atol=0.51)
    (tmp_path / "a.ppm").write_bytes(header + stored.tobytes()[:-1])
    with pytest.raises(BrokenImageError, match=r"a\.ppm"):
        folder[0]
    Image.new("RGB", (9, 6), (0, 128, 255)).save(tmp_path / "a.ppm")
    plain = ImageFolder(tmp_path, (6, 9), 3)
    assert plain.bits == 8 and plain[0][:, 0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_keep_every_value(tmp_path, channels, ending):
    stored, path = values(channels, "uint16"), tmp_path / f"a.{ending}"
    if ending == "png":
        write_png(path, stored)
    else:
        extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        tifffile.imwrite(path, stored.transpose(1, 2, 0), photometric="rgb", **extra)
    assert needs_planes(path) and ImageFolder(tmp_path, (6, 9), channels).bits == 16
    image = ImageFolder(tmp_path, (6, 9), channels)[0]
    assert image.dtype == torch.uint16 and np.array_equal(image.numpy(), stored)
    eight = ImageFolder(tmp_path, (6, 9), channels, bits=8)[0]
    assert eight.dtype == torch.uint8 and np.abs(eight.numpy() - stored / 257.0).max() <= 1


@pytest.mark.parametrize("wanted", [1, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_conversions_are_those_of_8_bit_images(tmp_path, channels, wanted):
    """Pillow's conversion of the 8-bit image, scaled by 257, is the reference."""
    stored, background = values(channels, "uint8"), (200, 20, 90)
    write_png(tmp_path / "8.png", stored)
    write_png(tmp_path / "16.png", stored.astype(np.uint16) * 257)
    reference = to_tensor(decode_image(tmp_path / "8.png", wanted, background)).double() * 257
    planes, is_deep = decode_planes(tmp_path / "16.png", wanted, background)
    assert is_deep
    difference = planes_to_tensor(planes, 16).double() - reference
    assert difference.abs().max() <= (257 if wanted == 1 or channels in (2, 4) else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_file_is_applied(tmp_path, orientation):
    stored = values(3, "uint8")
    Image.fromarray(stored.transpose(1, 2, 0)).save(tmp_path / "8.tif", tiffinfo={274: orientation})
    upright = to_tensor(decode_image(tmp_path / "8.tif")).numpy()
    tifffile.imwrite(
        tmp_path / "16.tif",
        stored.transpose(1, 2, 0).astype(np.uint16) * 257,
        photometric="rgb",
        extratags=[(274, "H", 1, orientation, True)],
    )
    planes, _ = decode_planes(tmp_path / "16.tif", 3)
    assert np.array_equal(planes_to_tensor(planes, 8).numpy(), upright)


def test_another_number_of_channels_is_refused_in_one_line(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(5, "uint8"), photometric=1, planarconfig=2)
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    (tmp_path / "c.tif").write_bytes(b"II*\0" + bytes(30))
    for name, channels, got in (
        ("a.tif", 6, r"it has the shape \[5, 6, 9\]"),
        ("a.tif", 3, r"it has the shape \[5, 6, 9\]"),
        ("b.png", 2, r"it has the shape \[3, 4, 4\]"),
        ("c.tif", 5, ""),
    ):
        message = rf"a readable image of {channels} channels, got '.*{name}' \(.*{got}.*\). Fix: "
        with pytest.raises(BrokenImageError, match=message) as caught:
            decode_planes(tmp_path / name, channels)
        assert "\n" not in str(caught.value)


def test_pillow_reads_what_it_can_hold(tmp_path):
    write_png(tmp_path / "a.png", values(3, "uint8"))
    write_png(tmp_path / "grey.png", values(1, "uint16"))
    tifffile.imwrite(tmp_path / "a.tif", values(3, "uint8"), photometric="rgb", planarconfig=2)
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.png").write_bytes(b"")
    assert not any(needs_planes(path) for path in tmp_path.iterdir())
    write_png(tmp_path / "deep.png", values(3, "uint16"))
    assert needs_planes(tmp_path / "deep.png") and not needs_planes(tmp_path / "deep.png", False)
