"""Decoding of one file: formats, modes, transparency, EXIF orientation and first frames."""

import json
from pathlib import Path

import numpy as np
import PIL
import pytest
from grey_images import pixels
from PIL import Image, ImageCms

from diffusion_framework.data import BrokenImageError, decode_image
from diffusion_framework.data.images.decode import image_formats
from diffusion_framework.data.images.resize import crop_and_resize

SHARED = Path(__file__).parents[4] / "shared" / "data"
ZOO, EXIF = SHARED / "image_zoo", SHARED / "exif_orientation"
STORED = {  # EXIF orientation -> pixels as stored, from the upright image [height, width, 3]
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize(
    "name", ["a.png", "a.bmp", "a.tif", "a.gif", "a.ppm", "a.tga", "a.webp", "a.jp2", "a.PNG"]
)
def test_lossless_formats_keep_every_pixel(tmp_path, name):
    image = np.zeros((5, 7, 3), np.uint8)
    image[..., 0] = np.arange(7) * 36
    image[..., 1] = np.arange(5)[:, None] * 60
    options = {".webp": {"lossless": True}, ".jp2": {"irreversible": False}}.get(
        Path(name).suffix, {}
    )
    Image.fromarray(image).save(tmp_path / name, **options)
    decoded = decode_image(tmp_path / name)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 77)])
def test_alpha_is_composited_onto_the_background(tmp_path, background):
    image = np.zeros((16, 16, 4), np.uint8)
    image[...] = (200, 30, 90, 0)
    image[..., 3] = np.arange(256).reshape(16, 16)
    Image.fromarray(image).save(tmp_path / "a.png")
    alpha = image[..., 3:] / 255
    expected = image[..., :3] * alpha + np.array(background) * (1 - alpha)
    got = pixels(decode_image(tmp_path / "a.png", 3, background))
    np.testing.assert_allclose(got, expected, atol=0.51)
    np.testing.assert_array_equal(got[0, 0], background)  # the hidden colour is gone
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png", 4), image)


def test_grey_with_alpha_is_composited(tmp_path):
    image = np.zeros((2, 2, 2), np.uint8)
    image[..., 0], image[..., 1] = 80, [[0, 255], [255, 0]]
    Image.fromarray(image, "LA").save(tmp_path / "a.png")
    got = pixels(decode_image(tmp_path / "a.png", 1, (250, 250, 250)))
    np.testing.assert_array_equal(got, [[250, 80], [80, 250]])


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_transparent_palette_entry_becomes_the_background(tmp_path, name):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / name, transparency=1)
    got = pixels(decode_image(tmp_path / name, 3, (1, 2, 3)))
    np.testing.assert_array_equal(got, [[[10, 20, 30], [1, 2, 3]]])


def test_a_partly_transparent_palette_is_composited(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 100, 100, 100])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=bytes([51, 255]))
    got = pixels(decode_image(tmp_path / "a.png", 1, (255, 255, 255)))
    np.testing.assert_array_equal(got, [[204, 100]])


@pytest.mark.parametrize(
    ("mode", "clear", "opaque"),
    [("L", 7, 100), ("RGB", (1, 2, 3), (100,) * 3), ("I;16", 9, 100 * 257)],
)
def test_one_transparent_colour_becomes_the_background(tmp_path, mode, clear, opaque):
    image = Image.new(mode, (2, 1), opaque)
    image.putpixel((0, 0), clear)
    image.save(tmp_path / "a.png", transparency=clear)
    np.testing.assert_array_equal(
        pixels(decode_image(tmp_path / "a.png", 1, (60, 60, 60))), [[60, 100]]
    )


def test_one_bit_images_are_black_and_white(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(decode_image(tmp_path / "a.png", 1)), np.eye(8) * 255)


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])  # Pillow inverts CMYK in JPEG, as Adobe does
def test_cmyk_becomes_rgb(tmp_path, name):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / name)
    got = pixels(decode_image(tmp_path / name)).reshape(-1, 3)
    assert (got[:, 0] > 230).all()
    assert (got[:, 1:] < 60).all()


def test_ycbcr_becomes_rgb(tmp_path):
    Image.new("RGB", (8, 8), (200, 40, 90)).convert("YCbCr").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(
        pixels(decode_image(tmp_path / "a.jpg"))[0, 0], (200, 40, 90), atol=4
    )


def test_lab_becomes_rgb(tmp_path):
    image = Image.new("RGB", (4, 4), (180, 90, 40))
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    np.testing.assert_allclose(
        pixels(decode_image(tmp_path / "a.tif"))[0, 0], (180, 90, 40), atol=4
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_the_exif_orientation_is_undone(tmp_path, photo, orientation, name):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](photo)))
    options = {".jpg": {"quality": 95}, ".webp": {"lossless": True}}.get(Path(name).suffix, {})
    stored.save(tmp_path / name, exif=exif, **options)
    decoded = decode_image(tmp_path / name)
    assert decoded.size == (160, 96)
    assert np.abs(pixels(decoded) - photo).mean() < 3


@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_photographs_of_all_orientations_look_alike(kind):
    if not EXIF.is_dir():
        pytest.skip(f"needs the photographs in {EXIF.name}")
    size = (48, 64) if kind == "Landscape" else (64, 48)
    views = [
        pixels(crop_and_resize(decode_image(EXIF / f"{kind}_{i}.jpg", at_least=size), size))
        for i in range(1, 9)
    ]
    for view in views[1:]:
        assert np.abs(view - views[0]).mean() < 4
        assert np.abs(view[::-1] - views[0]).mean() > 20  # the photograph is not symmetric


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif", "a.mpo"])
def test_the_first_frame_is_decoded(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {".webp": {"lossless": True}}.get(Path(name).suffix, {})
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert ".mpo" in image_formats()["JPEG"]
    np.testing.assert_allclose(pixels(decode_image(tmp_path / name))[4, 4], (255, 0, 0), atol=2)


def test_convert_image_to_converts_colours_but_not_alpha(tmp_path):
    Image.new("RGBA", (2, 2), (200, 40, 90, 128)).save(tmp_path / "a.png")
    grey = pixels(decode_image(tmp_path / "a.png", 3, convert_image_to="L"))
    assert (grey == grey[..., :1]).all()
    assert not (pixels(decode_image(tmp_path / "a.png", 3)) == grey).all()
    assert (pixels(decode_image(tmp_path / "a.png", 4, convert_image_to="L"))[..., 3] == 128).all()


@pytest.mark.filterwarnings("ignore")
def test_real_files_decode_to_their_known_sizes():
    if not ZOO.is_dir():
        pytest.skip(f"needs the files in {ZOO.name}")
    if int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("the known sizes are those of Pillow 13")
    manifest = json.loads((ZOO / "MANIFEST.json").read_text())
    rotated = {"orientation_rectangle.jpg"} | {
        f"avif/rot{r}mir{m}.avif" for r in (1, 3) for m in (0, 1)
    }
    wrong = []
    for name, known in manifest.items():
        try:
            size = list(decode_image(ZOO / name).size)
        except BrokenImageError:
            size = None
        expected = known["size"] if known["ok"] else None
        if size != (expected[::-1] if name in rotated else expected):
            wrong.append((name, size, expected))
    assert len(manifest) > 300
    assert not wrong
