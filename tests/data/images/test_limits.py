"""Images that are heavy to decode, and formats of which Pillow loses the depth."""

import io
import re
import struct
import tracemalloc
import zlib
from functools import cache

import numpy as np
import pytest
from grey_images import pixels, save
from PIL import Image, features

from diffusion_framework.data import BrokenImageError, ImageFolder, decode_image
from diffusion_framework.data.images.deep import LostDepthError, scale_values


@pytest.fixture
def peak():
    """A function that returns the largest memory taken so far, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def png(*chunks):
    """A PNG file of 8 x 8 grey pixels with further chunks."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(72))), (b"IEND", b"")]
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        found += struct.pack(">I", len(data)) + kind + data
        found += struct.pack(">I", zlib.crc32(kind + data))
    return found


def tiff(width, height, tile, samples=1, content=bytes(16)):
    """A TIFF file of one tile, compressed by zlib."""
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: samples, 284: 1}
    tags |= {322: tile, 323: tile, 324: 0, 325: len(content)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    file = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, value in tags.items():
        file += struct.pack("<HHII", tag, 4, 1, value)
    return file + bytes(4) + content


@cache
def bombs():
    """Small files that would take much memory, by name."""
    packed = zlib.compress(bytes(2**27), 9)
    screen = struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + bytes(6)
    return {
        "text.png": png((b"zTXt", b"x\0\0" + packed)),
        "utf8.png": png((b"iTXt", b"x\0\1\0\0\0" + packed)),
        "profile.png": png((b"iCCP", b"x\0\0" + packed)),
        "screen.gif": b"GIF89a" + screen + b"," + struct.pack("<4H", 0, 0, 1, 1) + b"\0\2\2D\1\0;",
        "tile.tif": tiff(16, 16, 32768),
        "strip.tif": tiff(16, 16, 16, samples=5, content=packed),
    }


@pytest.mark.parametrize("name", ["text.png", "utf8.png", "profile.png", "screen.gif", "tile.tif"])
def test_a_bomb_is_refused_by_name_in_little_memory_and_counted(tmp_path, name, peak):
    (tmp_path / name).write_bytes(bombs()[name])
    before = peak()
    with pytest.raises(BrokenImageError, match=rf"{name}' \(.*(too large|exceeds)") as caught:
        decode_image(tmp_path / name)
    assert "\n" not in str(caught.value) and peak() - before < 2**25
    for other in "xyz":
        save(tmp_path / f"{other}.png", 7)
    with pytest.warns(UserWarning, match=rf"broken image \(1 so far\).*{name}"):
        assert ImageFolder(tmp_path, 8, 1, broken="skip")[0].unique().tolist() == [7]


def test_a_strip_that_holds_more_than_it_declares_is_refused(tmp_path, peak):
    pytest.importorskip("tifffile", reason="TIFF files of many channels need tifffile")
    (tmp_path / "a.tif").write_bytes(bombs()["strip.tif"])
    before = peak()
    with pytest.raises(BrokenImageError, match="holds more than it declares"):
        ImageFolder(tmp_path, 8, 5, bits=8)[0]
    assert peak() - before < 2**25
    stored = np.random.default_rng(0).integers(0, 256, (16, 16, 5), dtype=np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(16, 16, 16, 5, zlib.compress(stored.tobytes())))
    image = ImageFolder(tmp_path, 16, 5, bits=8)[0]
    np.testing.assert_array_equal(image.numpy(), stored.transpose(2, 0, 1))


def test_the_scans_of_a_progressive_jpeg_file_are_bounded(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", progressive=True, quality=95)
    content = (tmp_path / "a.jpg").read_bytes()
    last = [scan.start() for scan in re.finditer(b"\xff\xda", content)][-1]
    (tmp_path / "b.jpg").write_bytes(content[:-2] + content[last:-2] * 90 + b"\xff\xd9")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    assert decode_image(tmp_path / "a.jpg").size == (96, 96)
    with pytest.raises(BrokenImageError, match=r"b\.jpg' \(100 scans of 96 x 96 .*exceeds the lim"):
        decode_image(tmp_path / "b.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    assert decode_image(tmp_path / "b.jpg").size == (96, 96), "100 scans of a small image are quick"


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_line_of_100000_pixels_stays_small(tmp_path, fit, peak):
    for name, size in (("tall", (1, 100_000)), ("wide", (100_000, 1))):
        Image.new("L", size, 9).save(tmp_path / f"{name}.png")
    for image in ImageFolder(tmp_path, 64, 1, fit=fit, background=(9, 9, 9)):
        assert image.shape == (1, 64, 64) and image.unique().tolist() == [9]
    assert peak() < 2**24


def test_scaling_a_deep_image_takes_little_more_memory_than_its_result(peak):
    stored = np.full((4000, 4000), 257, np.uint16)
    before = peak()
    scaled = scale_values(stored, bits=16, dtype=np.float32)
    assert (scaled == 257).all() and peak() - before < scaled.nbytes + 2**26


def test_only_the_first_of_many_frames_is_read(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), i % 250, np.uint8)) for i in range(300)]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[7].save(tmp_path / name, save_all=True, append_images=frames)
        content = (tmp_path / name).read_bytes()
        end = len(content) // 2 if name != "a.tif" else len(content)
        (tmp_path / name).write_bytes(content[:end])  # the rest may be anything
        assert pixels(decode_image(tmp_path / name, 1)).ravel().tolist() == [7] * 64


def deep_files(folder):
    """Writes colours of more than 8 bits in formats of which Pillow keeps 8; returns the depths."""
    ramp = np.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
    for bits in (12, 16):
        values, end = np.rint(ramp * (2**bits - 1)).astype(int), 2**bits - 1
        binary = f"P6 8 8 {end}\n".encode() + values.astype(">u2").tobytes()
        (folder / f"{bits}.ppm").write_bytes(binary)
        text = f"P3 8 8 {end}\n{' '.join(map(str, values.ravel().tolist()))}\n"
        (folder / f"text{bits}.ppm").write_text(text)
    header = struct.pack(">hBBHHHHll4s80sl404s", 474, 0, 2, 3, 8, 8, 3, 0, 65535, b"", b"", 0, b"")
    planes = np.rint(ramp[::-1] * 65535).astype(">u2").transpose(2, 0, 1)  # rows from the bottom
    (folder / "16.sgi").write_bytes(header + planes.tobytes())
    file = io.BytesIO()
    Image.fromarray(np.rint(ramp * 255).astype(np.uint8)).save(file, "JPEG2000")
    start = file.getvalue().index(b"\xff\x4f\xff\x51") + 42
    depths = b"\x0f\1\1" * 3
    changed = file.getvalue()[:start] + depths + file.getvalue()[start + len(depths) :]
    (folder / "16.jp2").write_bytes(changed)
    if features.check("avif"):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "AVIF")
        start = file.getvalue().index(b"av1C") + 6
        for bits, flag in ((10, 64), (12, 96)):
            flags = bytes([file.getvalue()[start] | flag])
            changed = file.getvalue()[:start] + flags + file.getvalue()[start + 1 :]
            pixels_of = b"pixi\0\0\0\0\3"
            changed = changed.replace(pixels_of + b"\x08" * 3, pixels_of + bytes([bits]) * 3)
            (folder / f"{bits}.avif").write_bytes(changed)
    return ramp * 255


def test_depth_that_pillow_loses_is_an_error_or_a_choice(tmp_path):
    (tmp_path / "deep").mkdir()
    expected = deep_files(tmp_path / "deep")
    for path in sorted((tmp_path / "deep").iterdir()):
        depth = int(re.sub(r"\D", "", path.stem))
        message = rf"{path.name}' of {depth} bits in .*Fix: set --data\.bits 8"
        with pytest.raises(LostDepthError, match=message) as caught:
            decode_image(path, bits=16)
        assert "\n" not in str(caught.value)
        if path.suffix in (".ppm", ".sgi"):
            np.testing.assert_allclose(decode_image(path), expected, atol=1.01)
    save(tmp_path / "only" / "b.png", 7)
    (tmp_path / "deep" / "text16.ppm").rename(tmp_path / "only" / "a.ppm")
    for options in ({}, {"bits": 16}, {"broken": "skip"}):
        with pytest.raises(LostDepthError):
            ImageFolder(tmp_path / "only", 8, **options)[0]
    assert ImageFolder(tmp_path / "only", 8, bits=8)[0].shape == (3, 8, 8)
    (tmp_path / "only" / "a.ppm").rename(tmp_path / "only" / "c.ppm")
    with pytest.raises(LostDepthError):
        ImageFolder(tmp_path / "only", 8)[1]


def test_8_bit_files_of_these_formats_are_read_as_before(tmp_path):
    names = ["a.ppm", "a.sgi", "a.jp2", *(["a.avif"] if features.check("avif") else [])]
    for name in names:
        Image.new("RGB", (8, 8), (0, 90, 200)).save(tmp_path / name)
        assert decode_image(tmp_path / name, bits=16).mode == "RGB"
    Image.new("L", (8, 8), 9).save(tmp_path / "a.pgm")
    Image.new("1", (8, 8)).save(tmp_path / "a.pbm")
    for name in ("a.pgm", "a.pbm"):
        assert decode_image(tmp_path / name, 1, bits=16).mode == "L"
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(deep).save(tmp_path / "deep.jp2", irreversible=False)
    np.testing.assert_array_equal(decode_image(tmp_path / "deep.jp2", 1, bits=16), deep)


def test_12_bits_in_jpeg_2000_fill_the_range_and_keep_their_units(tmp_path):
    """Pillow shifts them to 16 bits. It writes 16, so the header is changed to 12."""
    stored = (np.arange(256) * 16 + 15).astype(np.uint16).reshape(16, 16)
    file = io.BytesIO()
    middle = stored + 2**15 - 2**11  # values are written around the middle of their range
    Image.fromarray(middle.astype(np.uint16)).save(file, "JPEG2000", irreversible=False)
    content = bytearray(file.getvalue())
    for place in (content.index(b"\xff\x4f\xff\x51") + 42, content.index(b"ihdr") + 14):
        content[place] = 11  # 12 bits
    (tmp_path / "a.jp2").write_bytes(content)
    folder = ImageFolder(tmp_path, 16, 1)
    assert folder.bits == 16
    np.testing.assert_allclose(folder[0][0].numpy(), stored * (65535 / 4095), atol=0.51)
    halved = ImageFolder(tmp_path, 16, 1, value_range=(0, 8190))[0][0].numpy()
    np.testing.assert_allclose(halved, stored * (65535 / 8190), atol=0.51)
