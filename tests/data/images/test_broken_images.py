"""Damaged, hostile and missing files: one-line errors, or replacements with broken='skip'."""

import io
import multiprocessing
import os
import struct
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from grey_images import greys, save
from PIL import Image, features
from torch.utils.data import DataLoader

from diffusion_framework.data import BrokenImageError, ImageFolder, decode_image
from diffusion_framework.data.images import decode


def encoded(**options) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", encoded(format="JPEG")[:-2000], encoded(format="PNG")[:-2000]]
    + [encoded(format=name)[:300] for name in ("GIF", "TIFF", "WEBP", "BMP", "JPEG2000")],
    ids=["empty", "text", "jpeg", "png", "gif", "tiff", "webp", "bmp", "jpeg2000"],
)
def test_a_damaged_file_is_a_one_line_error(tmp_path, content):
    path = tmp_path / "a\nb.jpg"
    path.write_bytes(content)
    with pytest.raises(BrokenImageError) as caught:
        decode_image(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_a_damaged_avif_file_is_broken(tmp_path):
    """AVIF is the only format for which Pillow raises RuntimeError."""
    content = encoded(format="AVIF")
    start = content.index(b"mdat") + 4
    (tmp_path / "a.avif").write_bytes(content[:start] + bytes(len(content) - start))
    with pytest.raises(BrokenImageError):
        decode_image(tmp_path / "a.avif")


def test_missing_files_and_folders_are_broken(tmp_path):
    with pytest.raises(BrokenImageError, match="No such file"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(BrokenImageError):
        decode_image(tmp_path)


def test_postscript_named_as_png_is_not_executed(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(postscript)
    assert Image.open(tmp_path / "a.png").format == "EPS"  # Pillow itself would start Ghostscript
    with pytest.raises(BrokenImageError, match="not in a supported image format"):
        decode_image(tmp_path / "a.png")


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns, Pillow raises
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(header_only_png(side, side))
    with pytest.raises(BrokenImageError, match="pixels"):
        decode_image(tmp_path / "bomb.png")


def test_a_broken_image_is_an_error_with_file_and_fix(half_broken):
    dataset = ImageFolder(half_broken, 8)
    with pytest.raises(BrokenImageError) as caught:
        dataset[3]
    message = str(caught.value)
    assert str(half_broken / "3.png") in message
    assert "--data.broken skip" in message
    assert "\n" not in message


def test_skipped_images_are_replaced_by_the_next_and_warned_of_once(half_broken):
    dataset = ImageFolder(half_broken, 8, broken="skip")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert greys(dataset) == [10, 10, 20, 40, 40, 50]
        assert greys(dataset) == [10, 10, 20, 40, 40, 50]
    assert len(caught) == 2
    assert "0.png" in str(caught[0].message)
    assert "3.png" in str(caught[1].message)


def test_the_label_comes_from_the_replacement(tmp_path):
    save(tmp_path / "b/good.png", 9)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/bad.png").touch()
    dataset = ImageFolder(tmp_path, 8, labels=True, broken="skip")
    with pytest.warns(UserWarning, match=r"bad\.png"):
        image, label = dataset[0]
    assert (int(image[0, 0, 0]), dataset.class_names[label]) == (9, "b")


def test_the_last_image_is_replaced_by_the_first(half_broken):
    (half_broken / "5.png").write_bytes(b"")
    save(half_broken / "0.png", 60)
    dataset = ImageFolder(half_broken, 8, broken="skip")
    with pytest.warns(UserWarning, match=r"5\.png"):
        assert int(dataset[5][0, 0, 0]) == 60


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("count", [1, 2, 20])
def test_skipping_more_than_half_is_an_error(tmp_path, count):
    for i in range(count):
        (tmp_path / f"{i}.png").touch()
    dataset = ImageFolder(tmp_path, broken="skip")
    for index in range(count):  # and again at each further draw
        with pytest.raises(BrokenImageError, match="Expected at most half") as caught:
            dataset[index]
        assert "\n" not in str(caught.value)


def test_a_deleted_image_counts_as_broken(half_broken):
    strict, skipping = ImageFolder(half_broken, 8), ImageFolder(half_broken, 8, broken="skip")
    (half_broken / "1.png").unlink()
    with pytest.raises(BrokenImageError, match="No such file"):
        strict[1]
    with pytest.warns(UserWarning, match=r"1\.png.*No such file"):
        assert int(skipping[1][0, 0, 0]) == 20


def test_an_unreadable_image_is_broken():
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are closed to other users
        Path(folder).chmod(0o755)
        for name in ("1.png", "2.png"):
            save(Path(folder) / name, 20)
        (Path(folder) / "1.png").chmod(0)
        dataset, user = ImageFolder(folder, 8, broken="skip"), os.geteuid()
        strict = ImageFolder(folder, 8)
        if user == 0:  # root may read every file
            os.seteuid(65534)
        try:
            with pytest.raises(BrokenImageError, match="Permission denied"):
                strict[0]
            with pytest.warns(UserWarning, match=r"1\.png.*Permission denied"):
                assert int(dataset[0][0, 0, 0]) == 20
        finally:
            os.seteuid(user)


def decode_a_file_cut_short(path, results):
    """Decodes an uncompressed file that is cut short after Pillow has loaded it."""
    upright = decode.turn_upright

    def cut(image):
        os.truncate(path, 0)
        return upright(image)

    decode.turn_upright = cut
    results.put(np.asarray(decode_image(path)).max())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not cut open files short")
@pytest.mark.parametrize("ending", ["bmp", "tif", "ppm"])
def test_a_file_cut_short_while_it_is_decoded_does_not_end_the_process(tmp_path, ending):
    Image.new("RGBA" if ending == "tif" else "RGB", (300, 300), 90).save(tmp_path / f"a.{ending}")
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    path = tmp_path / f"a.{ending}"
    process = fork.Process(target=decode_a_file_cut_short, args=(path, results))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert path.stat().st_size == 0 and results.get() >= 90


@pytest.mark.filterwarnings("ignore")
def test_data_workers_draw_the_same_images(half_broken):
    dataset = ImageFolder(half_broken, 8, crop="random", broken="skip")
    alone, shared = ([*DataLoader(dataset, batch_size=2, num_workers=n)] for n in (0, 2))
    assert all(torch.equal(one, two) for one, two in zip(alone, shared, strict=True))


def test_data_workers_pass_on_the_error(half_broken):
    with pytest.raises(BrokenImageError, match=r"0\.png.*--data.broken skip"):
        next(iter(DataLoader(ImageFolder(half_broken), num_workers=1)))
