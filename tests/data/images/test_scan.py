"""The search for images below a folder: names, order, links and errors."""

import os

import pytest
from grey_images import greys, save

from diffusion_framework.data import ImageFolder


def test_images_are_sorted_by_relative_path(tmp_path):
    for name in ("b/1.png", "a.png", "b.png", "a/z/2.png", "a/10.png", "a/9.png"):
        save(tmp_path / name)
    assert ImageFolder(tmp_path).paths == [
        "a.png",
        "a/10.png",
        "a/9.png",
        "a/z/2.png",
        "b.png",
        "b/1.png",
    ]


def test_endings_match_in_any_case_and_hidden_files_are_left_out(tmp_path):
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


@pytest.mark.parametrize(
    "name", ["ü ñ 图", "a\nb", "space and 'quote'", "percent%20", os.fsdecode(b"\xff\xfe")]
)
def test_any_file_name_is_read(tmp_path, name):
    try:
        save(tmp_path / name / f"{name}.png", 77)
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system does not allow this name")
    assert greys(ImageFolder(tmp_path / name)) == [77]
    assert greys(ImageFolder(str(tmp_path))) == [77]
    ImageFolder(tmp_path).fingerprint()


def test_links_are_followed_and_each_file_counts_once(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    save(folder / "b/real.png")
    save(outside / "one.png")
    save(outside / "blob")
    (folder / "a").symlink_to(folder / "b")  # sorts before its target
    (folder / "again.png").symlink_to(folder / "b/real.png")
    (folder / "b/loop").symlink_to(folder)
    (folder / "b/self").symlink_to(folder / "b/self")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "out").symlink_to(outside)
    (folder / "out2").symlink_to(outside)
    (folder / "named.png").symlink_to(outside / "blob")  # only the link has an ending
    (folder / "named2.png").symlink_to(outside / "blob")
    dataset = ImageFolder(folder)
    assert dataset.paths == ["b/real.png", "named.png", "out/one.png"]
    assert dataset.dangling_links == 2
    (tmp_path / "link").symlink_to(folder)
    assert ImageFolder(tmp_path / "link").paths == dataset.paths


def test_a_named_pipe_is_not_an_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    save(tmp_path / "a.png")
    assert ImageFolder(tmp_path).paths == ["a.png"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, "Expected an existing folder"),
        (lambda path: path.write_bytes(b""), ValueError, "got the file"),
        (lambda path: path.mkdir(), ValueError, "0 images among 0 files"),
        (
            lambda path: (path.mkdir(), (path / "a.txt").touch()),
            ValueError,
            "0 images among 1 file ",
        ),
        (
            lambda path: (path.mkdir(), (path / "a.png").symlink_to("x")),
            ValueError,
            "1 dangling link ",
        ),
    ],
    ids=["missing", "file", "empty", "text", "dangling"],
)
def test_a_folder_without_images_is_a_one_line_error(tmp_path, make, error, message):
    path = tmp_path / "data"
    make(path)
    with pytest.raises(error, match=message) as caught:
        ImageFolder(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_name_is_not_the_current_folder():
    with pytest.raises(ValueError, match="got an empty folder"):
        ImageFolder("")
