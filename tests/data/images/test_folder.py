"""Folders of images: what is found, in which order, how it is cropped, and what happens to broken files."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from diffusion_framework.data import BrokenImageError, ImageFolder, decode_image
from diffusion_framework.data.images.decode import crop_and_resize, to_tensor

SHARED = Path(__file__).parents[4] / "shared" / "data"


def save(path: Path, grey: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path, format="PNG")


def greys(dataset: ImageFolder) -> list[int]:
    return [int(dataset[i][0, 0, 0]) for i in range(len(dataset))]


@pytest.fixture
def wide(tmp_path) -> Path:
    """One image whose columns are all different."""
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (20, 1))).save(tmp_path / "wide.png")
    return tmp_path


@pytest.fixture
def half_broken(tmp_path) -> Path:
    """0 and 3 are broken; 1, 2, 4 and 5 are grey 10, 20, 40 and 50."""
    for i in range(6):
        save(tmp_path / f"{i}.png", 10 * i)
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])
    return tmp_path


def test_order_is_that_of_relative_paths(tmp_path):
    for name in ("b/1.png", "a.png", "b.png", "a/z/2.png", "a/10.png", "a/9.png"):
        save(tmp_path / name)
    assert ImageFolder(tmp_path).paths == ["a.png", "a/10.png", "a/9.png", "a/z/2.png", "b.png", "b/1.png"]


def test_endings_in_any_case_and_hidden_files(tmp_path):
    for name in (
        "a.PNG",
        "b.Jpg",
        "c.webp",
        "._a.png",
        ".DS_Store",
        ".hidden/d.png",
        "e.txt",
        "f.eps",
        "png",
    ):
        save(tmp_path / name)
    assert ImageFolder(tmp_path).paths == ["a.PNG", "b.Jpg", "c.webp"]
    assert ImageFolder(tmp_path, extensions=["png", ".TXT"]).paths == ["a.PNG", "e.txt"]


@pytest.mark.parametrize("name", ["ü ñ 图", "a\nb", "space and 'quote'", "percent%20", os.fsdecode(b"\xff\xfe")])
def test_any_name_works(tmp_path, name):
    try:
        save(tmp_path / name / f"{name}.png", 77)
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system does not take this name")
    assert greys(ImageFolder(tmp_path / name)) == [77]
    assert greys(ImageFolder(str(tmp_path))) == [77]
    ImageFolder(tmp_path).fingerprint()


def test_links_are_followed_once(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    save(folder / "b/real.png")
    save(outside / "one.png")
    save(outside / "blob")
    (folder / "a").symlink_to(folder / "b")  # sorts before the folder it leads to
    (folder / "again.png").symlink_to(folder / "b/real.png")
    (folder / "b/loop").symlink_to(folder)
    (folder / "b/self").symlink_to(folder / "b/self")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "out").symlink_to(outside)
    (folder / "out2").symlink_to(outside)
    (folder / "named.png").symlink_to(outside / "blob")  # the link has the ending, as in a content store
    (folder / "named2.png").symlink_to(outside / "blob")
    dataset = ImageFolder(folder)
    assert dataset.paths == ["b/real.png", "named.png", "out/one.png"]
    assert dataset.dangling_links == 2
    (tmp_path / "link").symlink_to(folder)
    assert ImageFolder(tmp_path / "link").paths == dataset.paths


def test_a_pipe_with_the_name_of_an_image_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    save(tmp_path / "a.png")
    assert ImageFolder(tmp_path).paths == ["a.png"]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda path: None, FileNotFoundError, "Expected an existing folder"),
        (lambda path: path.write_bytes(b""), ValueError, "got the file"),
        (lambda path: path.mkdir(), ValueError, "0 images among 0 files"),
        (lambda path: (path.mkdir(), (path / "a.txt").touch()), ValueError, "0 images among 1 files"),
        (
            lambda path: (path.mkdir(), (path / "a.png").symlink_to("x")),
            ValueError,
            "1 dangling links",
        ),
    ],
    ids=["missing", "file", "empty", "text", "dangling"],
)
def test_a_folder_without_images_is_one_line(tmp_path, make, error, says):
    path = tmp_path / "data"
    make(path)
    with pytest.raises(error, match=says) as caught:
        ImageFolder(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder_is_not_the_current_one():
    with pytest.raises(ValueError, match="got an empty folder"):
        ImageFolder("")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"channels": 2}, "channels"),
        ({"image_size": (64, 0)}, "image_size"),
        ({"background": (0, 0, 256)}, "background"),
        ({"seed": -1}, "seed"),
        ({"convert_image_to": "grey"}, "convert_image_to.*'grey'"),
    ],
)
def test_bad_options_are_named(wide, options, named):
    with pytest.raises(ValueError, match=named):
        ImageFolder(wide, **options)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (16, 40), (40, 16)])
def test_images_have_the_asked_shape(wide, channels, size):
    image = ImageFolder(wide, size, channels)[0]
    assert image.dtype == torch.uint8
    assert image.shape == (channels, *size)
    assert image.is_contiguous()


def test_labels_number_the_sorted_sub_folders(tmp_path):
    for name in ("rose/1.png", "daisy/deep/2.png", "daisy/3.png", "tulip/4.png"):
        save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    dataset = ImageFolder(tmp_path, labels=True)
    assert dataset.class_names == ["daisy", "rose", "tulip"]
    assert [dataset.class_names[dataset[i][1]] for i in range(4)] == [p.split("/")[0] for p in dataset.paths]
    assert ImageFolder(tmp_path).class_names == []
    save(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"stray\.png.*labels: false"):
        ImageFolder(tmp_path, labels=True)


def test_random_crop_is_a_function_of_seed_index_and_epoch(wide):
    for i in range(3):
        (wide / f"copy{i}.png").write_bytes((wide / "wide.png").read_bytes())
    dataset, same = (ImageFolder(wide, 20, 1, crop="random", seed=5) for _ in range(2))
    seen = [dataset.draw(i, epoch) for i in range(4) for epoch in range(4)]
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - that it does not matter is the point
    again = [same.draw(i, epoch) for i in reversed(range(4)) for epoch in reversed(range(4))]
    assert all(torch.equal(one, two) for one, two in zip(seen, reversed(again), strict=True))
    lefts = [int(image[0, 0, 0]) for image in seen]
    assert len(set(lefts)) > 10
    assert all(0 <= left <= 180 for left in lefts)
    other = ImageFolder(wide, 20, 1, crop="random", seed=6)
    assert not torch.equal(torch.stack(seen), torch.stack([other.draw(i, e) for i in range(4) for e in range(4)]))


def test_random_crops_cover_the_whole_image(wide):
    dataset = ImageFolder(wide, 20, 1, crop="random")
    lefts = np.array([int(dataset.draw(0, epoch)[0, 0, 0]) for epoch in range(300)])
    assert lefts.min() < 10
    assert lefts.max() > 170
    assert abs(lefts.mean() - 90) < 5 * (180 / 12**0.5) / 300**0.5  # five standard errors of a uniform mean


def test_large_jpeg_is_decoded_at_a_reduced_scale(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    reduced = crop_and_resize(decode_image(tmp_path / "a.jpg", 1, at_least=(16, 16)), (16, 16))
    full = crop_and_resize(decode_image(tmp_path / "a.jpg", 1), (16, 16))
    assert torch.equal(ImageFolder(tmp_path, 16, 1)[0], to_tensor(reduced))
    assert not torch.equal(to_tensor(full), to_tensor(reduced))


def test_center_crop_is_the_middle_in_every_epoch(wide):
    dataset = ImageFolder(wide, 20, 1)
    assert dataset.draw(0, 0)[0, 0].tolist() == list(range(90, 110))
    assert torch.equal(dataset.draw(0, 0), dataset.draw(0, 7))


def test_broken_image_is_an_error_that_names_file_reason_and_remedy(half_broken):
    dataset = ImageFolder(half_broken, 8)
    with pytest.raises(BrokenImageError) as caught:
        dataset[3]
    message = str(caught.value)
    assert str(half_broken / "3.png") in message
    assert "broken: skip" in message
    assert "\n" not in message


def test_skipped_images_are_replaced_by_the_next_and_named_once(half_broken):
    dataset = ImageFolder(half_broken, 8, broken="skip")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert greys(dataset) == [10, 10, 20, 40, 40, 50]
        assert greys(dataset) == [10, 10, 20, 40, 40, 50]
    assert len(caught) == 2
    assert "0.png" in str(caught[0].message)
    assert "3.png" in str(caught[1].message)


def test_label_and_crop_are_those_of_the_replacement(tmp_path):
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
def test_all_broken_is_an_error(tmp_path, count):
    for i in range(count):
        (tmp_path / f"{i}.png").touch()
    dataset = ImageFolder(tmp_path, broken="skip")
    for index in range(count):  # also for who goes on asking
        with pytest.raises(BrokenImageError, match="More than half") as caught:
            dataset[index]
        assert "\n" not in str(caught.value)


def test_image_that_vanished_follows_the_policy(half_broken):
    strict, skipping = ImageFolder(half_broken, 8), ImageFolder(half_broken, 8, broken="skip")
    (half_broken / "1.png").unlink()
    with pytest.raises(BrokenImageError, match="No such file"):
        strict[1]
    with pytest.warns(UserWarning, match=r"1\.png.*No such file"):
        assert int(skipping[1][0, 0, 0]) == 20


def test_unreadable_image_is_broken(half_broken):
    (half_broken / "1.png").chmod(0)
    if os.access(half_broken / "1.png", os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(BrokenImageError, match="Permission denied"):
        ImageFolder(half_broken)[1]


def test_index_out_of_range(wide):
    for index in (-1, 1):
        with pytest.raises(IndexError):
            ImageFolder(wide)[index]


def test_fingerprint_follows_the_list_of_files(half_broken):
    before = ImageFolder(half_broken).fingerprint()
    assert ImageFolder(half_broken, 16, 1).fingerprint() == before
    (half_broken / "5.png").rename(half_broken / "6.png")
    assert ImageFolder(half_broken).fingerprint() != before


@pytest.mark.filterwarnings("ignore")
def test_workers_see_what_one_process_sees(half_broken):
    dataset = ImageFolder(half_broken, 8, crop="random", broken="skip")
    alone, shared = ([*DataLoader(dataset, batch_size=2, num_workers=n)] for n in (0, 2))
    assert all(torch.equal(one, two) for one, two in zip(alone, shared, strict=True))


def test_worker_hands_on_the_error(half_broken):
    with pytest.raises(BrokenImageError, match=r"0\.png.*broken: skip"):
        next(iter(DataLoader(ImageFolder(half_broken), num_workers=1)))


def test_real_flowers():
    folder = SHARED / "flowers128"
    if not folder.is_dir():
        pytest.skip(f"needs the images of {folder.name}")
    dataset = ImageFolder(folder, labels=True)
    assert dataset.class_names == sorted(path.name for path in folder.iterdir() if path.is_dir())
    image, label = dataset[len(dataset) - 1]
    assert image.shape == (3, 64, 64)
    assert image.float().std() > 5
    assert label == len(dataset.class_names) - 1


def test_a_deep_folder_keeps_its_depth_on_one_scale(tmp_path):
    """The first picture decides; 8-bit pictures beside it are as bright as before."""
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


def test_a_deep_picture_among_flat_ones_is_not_flattened_in_silence(tmp_path):
    Image.new("L", (8, 8), 3).save(tmp_path / "a.png")
    Image.new("I;16", (8, 8), 40000).save(tmp_path / "b.png")
    folder = ImageFolder(tmp_path, 8, 1)
    assert folder.bits == 8 and folder[0].dtype == torch.uint8
    with pytest.raises(ValueError, match="Expected images of 8 bits, .*image 1 with more. Fix: --data.bits 16"):
        folder[1]
    with pytest.raises(ValueError, match=r"Expected value_range to rise, got \(1, 0\)"):
        ImageFolder(tmp_path, 8, 1, value_range=(1, 0))
