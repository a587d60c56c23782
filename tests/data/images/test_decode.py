"""One file to one picture: every mode of the formats, EXIF, damage, and bounds."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageCms, features

from diffusion_framework.data import BrokenImageError, decode_image
from diffusion_framework.data.images.decode import crop_and_resize, image_formats, to_tensor
from diffusion_framework.data.images.deep import ValueRangeError, scale_values, to_eight_bits

SHARED = Path(__file__).parents[4] / "shared" / "data"
ZOO, EXIF = SHARED / "image_zoo", SHARED / "exif_orientation"
TURNS = {  # what the camera stored, made from the upright picture [height, width, 3]
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth picture without any symmetry, [96, 160, 3]."""
    down, right = np.mgrid[0:96, 0:160]
    waves = [np.sin(right / 17 + down / 40), np.cos(down / 13), np.sin(right * down / 2500)]
    return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.gif", "a.ppm", "a.tga", "a.webp", "a.jp2", "a.PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path, name):
    made = np.zeros((5, 7, 3), np.uint8)
    made[..., 0] = np.arange(7) * 36
    made[..., 1] = np.arange(5)[:, None] * 60
    options = {".webp": {"lossless": True}, ".jp2": {"irreversible": False}}.get(Path(name).suffix, {})
    Image.fromarray(made).save(tmp_path / name, **options)
    decoded = decode_image(tmp_path / name)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(decoded, made)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "big_endian.tif"])
def test_sixteen_bit_ramp_is_scaled_not_clipped(tmp_path, name):
    ramp = np.arange(0, 65536, 16, dtype=">u2" if "big" in name else "<u2").reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / name)
    grey = pixels(decode_image(tmp_path / name, 1)).ravel()
    assert len(np.unique(grey)) > 200
    assert (np.diff(grey) >= 0).all()
    np.testing.assert_allclose(grey, ramp.ravel() / 257, atol=0.51)


def test_twelve_bits_fill_the_range():
    ramp = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    assert to_eight_bits(ramp, None, 12).getextrema() == (0, 255)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-1, 1), (-7, 3), (0, 1e4)])
def test_float_values_are_scaled_from_the_range_of_all_pictures(tmp_path, low, high):
    ramp = np.linspace(low, high, 1024, dtype=np.float32).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    named = None if (low, high) == (0, 1) else (low, high)
    grey = pixels(decode_image(tmp_path / "a.tif", 1, value_range=named)).ravel()
    np.testing.assert_allclose(grey, np.linspace(0, 255, 1024), atol=0.51)
    half = pixels(decode_image(tmp_path / "a.tif", 1, value_range=(low, 2 * high - low))).ravel()
    np.testing.assert_allclose(half, np.linspace(0, 127.5, 1024), atol=0.51)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_out_of_range_are_refused_and_never_scaled_picture_by_picture(tmp_path, dtype):
    values = np.array([[0, 2**20], [-5, 7]]).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.tif")
    end = "1" if dtype is np.float32 else "65535"
    message = rf"'.*a.tif': Expected values in \[0, {end}\], got -5 to 1.04858e\+06. Fix: .*--data.value_range lo,hi"
    with pytest.raises(ValueRangeError, match=message) as error:
        decode_image(tmp_path / "a.tif", 1)
    assert "\n" not in str(error.value) and not isinstance(error.value, BrokenImageError)  # it is not skipped
    assert decode_image(tmp_path / "a.tif", 1, value_range=(-5, 2**20)).getextrema() == (0, 255)


def test_not_a_number_does_not_spread():
    values = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    clean = scale_values(Image.fromarray(values))
    values[0, 0], values[3, 3] = np.nan, np.inf  # where the ends of the range are
    np.testing.assert_array_equal(scale_values(Image.fromarray(values)), clean)
    assert (scale_values(Image.new("F", (2, 2), np.nan)) == 0).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_value_of_sixteen_bits_is_kept(tmp_path, channels):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    kept = to_tensor(decode_image(tmp_path / "a.png", channels, bits=16), channels, bits=16)
    assert kept.dtype == torch.uint16 and kept.shape == (channels, 256, 256)
    for colour in kept[:3]:
        np.testing.assert_array_equal(colour.numpy(), ramp)
    assert channels < 4 or (kept[3].numpy() == 65535).all()
    plain = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    np.testing.assert_array_equal(to_tensor(plain, 1, bits=16).numpy()[0], np.arange(256).reshape(16, 16) * 257)


def test_a_transparent_value_of_sixteen_bits_shows_the_background(tmp_path):
    image = Image.new("I;16", (2, 1), 1000)
    image.putpixel((0, 0), 9)
    image.save(tmp_path / "a.png", transparency=9)
    kept = to_tensor(decode_image(tmp_path / "a.png", 1, (60, 60, 60), bits=16), 1, bits=16)
    assert kept.numpy().tolist() == [[[60 * 257, 1000]]]


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 77)])
def test_alpha_is_laid_on_the_background(tmp_path, background):
    made = np.zeros((16, 16, 4), np.uint8)
    made[...] = (200, 30, 90, 0)
    made[..., 3] = np.arange(256).reshape(16, 16)
    Image.fromarray(made).save(tmp_path / "a.png")
    alpha = made[..., 3:] / 255
    wanted = made[..., :3] * alpha + np.array(background) * (1 - alpha)
    got = pixels(decode_image(tmp_path / "a.png", 3, background))
    np.testing.assert_allclose(got, wanted, atol=0.51)
    np.testing.assert_array_equal(got[0, 0], background)  # nothing of the hidden colour
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png", 4), made)


def test_grey_with_alpha(tmp_path):
    made = np.zeros((2, 2, 2), np.uint8)
    made[..., 0], made[..., 1] = 80, [[0, 255], [255, 0]]
    Image.fromarray(made, "LA").save(tmp_path / "a.png")
    got = pixels(decode_image(tmp_path / "a.png", 1, (250, 250, 250)))
    np.testing.assert_array_equal(got, [[250, 80], [80, 250]])


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palette_with_a_transparent_entry(tmp_path, name):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / name, transparency=1)
    got = pixels(decode_image(tmp_path / name, 3, (1, 2, 3)))
    np.testing.assert_array_equal(got, [[[10, 20, 30], [1, 2, 3]]])


def test_palette_with_partial_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 100, 100, 100])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=bytes([51, 255]))
    got = pixels(decode_image(tmp_path / "a.png", 1, (255, 255, 255)))
    np.testing.assert_array_equal(got, [[204, 100]])


@pytest.mark.parametrize(
    ("mode", "clear", "opaque"), [("L", 7, 100), ("RGB", (1, 2, 3), (100,) * 3), ("I;16", 9, 100 * 257)]
)
def test_one_transparent_colour(tmp_path, mode, clear, opaque):
    image = Image.new(mode, (2, 1), opaque)
    image.putpixel((0, 0), clear)
    image.save(tmp_path / "a.png", transparency=clear)
    np.testing.assert_array_equal(pixels(decode_image(tmp_path / "a.png", 1, (60, 60, 60))), [[60, 100]])


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(decode_image(tmp_path / "a.png", 1)), np.eye(8) * 255)


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])  # Pillow writes CMYK JPEG the way Adobe does: inverted
def test_cmyk(tmp_path, name):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / name)
    got = pixels(decode_image(tmp_path / name)).reshape(-1, 3)
    assert (got[:, 0] > 230).all()
    assert (got[:, 1:] < 60).all()


def test_ycbcr_file_is_its_rgb(tmp_path):
    Image.new("RGB", (8, 8), (200, 40, 90)).convert("YCbCr").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(pixels(decode_image(tmp_path / "a.jpg"))[0, 0], (200, 40, 90), atol=4)


def test_lab_is_converted(tmp_path):
    made = Image.new("RGB", (4, 4), (180, 90, 40))
    lab = ImageCms.profileToProfile(
        made, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    np.testing.assert_allclose(pixels(decode_image(tmp_path / "a.tif"))[0, 0], (180, 90, 40), atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_orientation(tmp_path, photo, orientation, name):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](photo)))
    options = {".jpg": {"quality": 95}, ".webp": {"lossless": True}}.get(Path(name).suffix, {})
    stored.save(tmp_path / name, exif=exif, **options)
    decoded = decode_image(tmp_path / name)
    assert decoded.size == (160, 96)
    assert np.abs(pixels(decoded) - photo).mean() < 3


@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_real_orientations_match_the_upright_photo(kind):
    if not EXIF.is_dir():
        pytest.skip(f"needs the photos of {EXIF.name}")
    size = (48, 64) if kind == "Landscape" else (64, 48)
    views = [pixels(crop_and_resize(decode_image(EXIF / f"{kind}_{i}.jpg", at_least=size), size)) for i in range(1, 9)]
    for view in views[1:]:
        assert np.abs(view - views[0]).mean() < 4
        assert np.abs(view[::-1] - views[0]).mean() > 20  # the photo is not its own mirror image


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif", "a.mpo"])
def test_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {".webp": {"lossless": True}}.get(Path(name).suffix, {})
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert ".mpo" in image_formats()["JPEG"]
    np.testing.assert_allclose(pixels(decode_image(tmp_path / name))[4, 4], (255, 0, 0), atol=2)


def test_convert_image_to_takes_the_colour_but_not_the_alpha(tmp_path):
    Image.new("RGBA", (2, 2), (200, 40, 90, 128)).save(tmp_path / "a.png")
    grey = pixels(decode_image(tmp_path / "a.png", 3, convert_image_to="L"))
    assert (grey == grey[..., :1]).all()
    assert not (pixels(decode_image(tmp_path / "a.png", 3)) == grey).all()
    assert (pixels(decode_image(tmp_path / "a.png", 4, convert_image_to="L"))[..., 3] == 128).all()


def test_reduced_decode_is_close_to_the_full_one(tmp_path, photo):
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
def test_reduced_decode_never_goes_below_twice_the_size(tmp_path, photo, size, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photo).resize((1501, 977)).save(tmp_path / "a.jpg", exif=exif)
    full, reduced = decode_image(tmp_path / "a.jpg"), decode_image(tmp_path / "a.jpg", at_least=size)
    crop = min(reduced.height / size[0], reduced.width / size[1])
    assert reduced.size == full.size or crop >= 2


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])  # where Pillow only warns, and where it refuses
def test_bomb_is_refused_before_it_is_unpacked(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(header_only_png(side, side))
    with pytest.raises(BrokenImageError, match="pixels"):
        decode_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("shape", [(1, 9000), (9000, 1)])
def test_thin_image_is_resized_without_growing(tmp_path, shape):
    Image.fromarray(np.full(shape, 77, np.uint8)).save(tmp_path / "a.png")
    small = crop_and_resize(decode_image(tmp_path / "a.png", 1), (64, 64))
    assert small.size == (64, 64)
    assert small.getextrema() == (77, 77)


def test_crop_of_the_asked_size_copies_pixels(photo):
    image = Image.fromarray(photo)  # 96 high: only the width is cropped
    np.testing.assert_array_equal(crop_and_resize(image, (96, 60), (0.5, 0.0)), photo[:, :60])
    np.testing.assert_array_equal(crop_and_resize(image, (96, 60), (0.5, 0.999999)), photo[:, 99:159])
    np.testing.assert_array_equal(crop_and_resize(image, (96, 60)), photo[:, 50:110])


@pytest.mark.parametrize("place", [(0, 0), (0.3, 0.7), (1, 1)])
def test_any_size_fits_any_crop(place):
    rng = np.random.default_rng(0)
    for width, height, down, right in rng.integers(1, 200, (200, 4)).tolist():
        assert crop_and_resize(Image.new("L", (width, height)), (down, right), place).size == (right, down)


def test_resize_averages():
    checks = np.indices((256, 256)).sum(0) % 2 * 255  # without averaging, all black or all white
    small = pixels(crop_and_resize(Image.fromarray(checks.astype(np.uint8)), (16, 16)))
    assert np.abs(small - 127.5).max() < 3


def test_tensor_is_channels_first_and_contiguous(photo):
    tensor = to_tensor(Image.fromarray(photo))
    assert tensor.shape == (3, 96, 160)
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), photo)


def saved(**options) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a picture", saved(format="JPEG")[:-2000], saved(format="PNG")[:-2000]]
    + [saved(format=name)[:300] for name in ("GIF", "TIFF", "WEBP", "BMP", "JPEG2000")],
    ids=["empty", "text", "jpeg", "png", "gif", "tiff", "webp", "bmp", "jpeg2000"],
)
def test_damaged_file_is_broken_in_one_line(tmp_path, content):
    path = tmp_path / "a\nb.jpg"
    path.write_bytes(content)
    with pytest.raises(BrokenImageError) as caught:
        decode_image(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_damaged_avif_is_broken(tmp_path):  # the one format that raises RuntimeError
    content = saved(format="AVIF")
    start = content.index(b"mdat") + 4
    (tmp_path / "a.avif").write_bytes(content[:start] + bytes(len(content) - start))
    with pytest.raises(BrokenImageError):
        decode_image(tmp_path / "a.avif")


def test_missing_file_and_folder_are_broken(tmp_path):
    with pytest.raises(BrokenImageError, match="No such file"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(BrokenImageError):
        decode_image(tmp_path)


def test_postscript_in_disguise_is_not_run(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(postscript)
    assert Image.open(tmp_path / "a.png").format == "EPS"  # Pillow itself would hand it to Ghostscript
    with pytest.raises(BrokenImageError, match="not in a supported image format"):
        decode_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore")
def test_zoo_outcomes():
    if not ZOO.is_dir():
        pytest.skip(f"needs the files of {ZOO.name}")
    if int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("the outcomes are those of Pillow 13")
    outcomes = json.loads((ZOO / "MANIFEST.json").read_text())
    turned = {"orientation_rectangle.jpg"} | {f"avif/rot{r}mir{m}.avif" for r in (1, 3) for m in (0, 1)}
    wrong = []
    for name, known in outcomes.items():
        try:
            size = list(decode_image(ZOO / name).size)
        except BrokenImageError:
            size = None
        wanted = known["size"] if known["ok"] else None
        if size != (wanted[::-1] if name in turned else wanted):
            wrong.append((name, size, wanted))
    assert len(outcomes) > 300
    assert not wrong
