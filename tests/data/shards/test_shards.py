"""Shards as a dataset: the same images as in a folder, listed once, with errors on one line."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from grey_images import greys
from PIL import Image
from tar_shards import FAULTS, open_shards, png, write_damaged, write_shards, write_tar

from diffusion_framework import ImageFolder, Shards
from diffusion_framework.data import BrokenImageError
from diffusion_framework.data.shards import shards

FOLDER_OPTIONS = [
    {},
    {"crop": "random", "seed": 3},
    {"channels": 4},
    {"channels": 1, "convert_image_to": "L"},
]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("options", FOLDER_OPTIONS, ids=str)
def test_images_are_bit_equal_to_those_of_a_folder(tmp_path, layout, options):
    """With long and non-ASCII names of members in the layouts that allow them."""
    rng = np.random.default_rng(0)
    long = "x" * (1 if layout == tarfile.USTAR_FORMAT else 300)
    odd = "" if layout == tarfile.USTAR_FORMAT else "ü 图"
    members: dict[str, bytes] = {}
    for i, kind in enumerate(["png", "jpg", "JPEG", "webp", "gif", "tiff", "bmp"]):
        size = (300, 200) if i < 3 else (20 + i, 31)
        pixels = rng.integers(
            0, 256, (*size, 4 if kind in ("png", "webp", "tiff") else 3), np.uint8
        )
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(kind.lower(), kind))
        for folder in "ab" if long == "x" else ("a" * 200, "b" * 200):
            path = tmp_path / "folder" / folder / f"{i}{odd}{long[:100]}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
    folder = ImageFolder(tmp_path / "folder", (16, 24), **options)
    for path in folder.paths:
        members |= {
            path: (tmp_path / "folder" / path).read_bytes(),
            path.partition(".")[0] + ".cls": b"1",
        }
    names = list(members)
    for number, part in enumerate((names[:8], names[8:])):
        write_tar(tmp_path / f"{number}.tar", {name: members[name] for name in part}, format=layout)
    dataset = Shards(
        f"{tmp_path}/{{0..1}}.tar", (16, 24), cache_folder=tmp_path / "cache", **options
    )
    assert len(dataset) == len(folder) == 14
    for index in range(14):
        for epoch in range(2):
            assert torch.equal(dataset.draw(index, epoch), folder.draw(index, epoch))
    for index in (-1, 14):
        with pytest.raises(IndexError):
            dataset[index]


def test_members_follow_the_convention_of_webdataset(tmp_path):
    """Keys end at the first dot of the name; labels may come later; other members are ignored."""
    write_tar(
        tmp_path / "a.tar",
        {
            "./0.cls": b" 7\n",
            "dir.d/0.png": png(10),
            "dir.d/0.cls": b"3",
            "dir.d/0.json": b"{}",
            "dir.d/0.seg.png": png(99),
            "dir.d/._0.png": b"from a Mac",
            ".hidden.png": png(98),
            "png": png(97),
            "README.md": b"",
            "./0.PNG": png(11),
            "1.jpg": png(12),
            "1.cls": b"0",
        },
    )
    dataset = open_shards(str(tmp_path / "a.tar"), tmp_path, labels=True)
    found = [(int(image[0, 0, 0]), label) for image, label in map(dataset.__getitem__, range(3))]
    assert found == [(10, 3), (11, 7), (12, 0)]
    assert dataset.class_names == [str(i) for i in range(8)]
    chosen = open_shards([str(tmp_path / "a.tar")], tmp_path, extensions=["seg.png"])
    assert greys([*chosen][:1]) == [99] and len(chosen) == 1 and chosen.class_names == []


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_shards_are_one_line_errors_with_their_name(tmp_path, fault):
    path = write_damaged(tmp_path)[fault]
    good = write_tar(tmp_path / "fine.tar", {"a.png": png(), "a.cls": b"0"})
    with pytest.raises((ValueError, OSError), match=FAULTS[fault]) as caught:
        open_shards([str(good), str(path)], tmp_path, labels=True)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    if fault in ("unlabelled", "word", "many"):
        assert open_shards(str(path), tmp_path)[0].shape == (1, 8, 8)


def test_broken_images_are_named_with_their_shard_or_skipped(tmp_path):
    write_tar(tmp_path / "a.tar", {"d/0.png": png(0), "d/1.png": png(1)[:40], "d/2.png": b""})
    write_tar(tmp_path / "b.tar", {"3.png": png(3), "4.png": png(4), "5.png": png(5)})
    where = f"{tmp_path}/{{a,b}}.tar"
    with pytest.raises(BrokenImageError, match=r"a\.tar/d/1\.png' .*--data.broken skip") as caught:
        open_shards(where, tmp_path)[1]
    assert "\n" not in str(caught.value)
    skipping = open_shards(where, tmp_path, broken="skip")
    with pytest.warns(UserWarning, match=r"a\.tar/d/[12]\.png"):
        assert greys(skipping[i] for i in range(6)) == [0, 3, 3, 3, 4, 5]


def test_the_fingerprint_depends_on_names_counts_and_contents_not_on_folders(tmp_path):
    before = open_shards(write_shards(tmp_path / "a"), tmp_path).fingerprint()
    assert open_shards(write_shards(tmp_path / "b"), tmp_path).fingerprint() == before
    assert (
        open_shards(write_shards(tmp_path / "c", (3, 5, 4, 6, 3, 5, 4)), tmp_path).fingerprint()
        != before
    )
    assert open_shards(write_shards(tmp_path / "d", (3, 5)), tmp_path).fingerprint() != before
    changed = write_shards(tmp_path / "e")
    path = tmp_path / "e" / "part-03.tar"
    assert png(13) in path.read_bytes() and len(png(13)) == len(png(99))
    path.write_bytes(path.read_bytes().replace(png(13), png(99)))
    assert open_shards(changed, tmp_path).fingerprint() != before


def test_few_shards_are_open_at_a_time(tmp_path):
    dataset = open_shards(write_shards(tmp_path / "in", [1] * 40), tmp_path)
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs Linux")
    before = len(list(folder.iterdir()))
    assert greys(dataset[i] for i in range(40)) == list(range(40))
    assert len(list(folder.iterdir())) <= before + 16
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[39], dataset[39])


def test_shards_are_listed_once_and_again_after_a_change(tmp_path, monkeypatch):
    pattern = write_shards(tmp_path / "in")
    listed, list_images = [], shards.list_images
    monkeypatch.setattr(
        shards,
        "list_images",
        lambda file, *rest: listed.append(rest[0]) or list_images(file, *rest),
    )
    names = open_shards(pattern, tmp_path).names
    assert sorted(listed) == names
    for labels in (False, True):
        sample = open_shards(pattern, tmp_path, labels=labels).draw(29, 0)
        assert greys([sample[0] if labels else sample]) == [29]
    assert len(listed) == 7
    write_tar(Path(names[2]), {"0.png": png(200)})
    os.utime(names[2], (1, 1))
    changed = open_shards(pattern, tmp_path)
    assert listed[7:] == [names[2]]
    assert len(changed) == 27 and greys([changed[8]]) == [200]
    for path in (tmp_path / "cache" / "lists").glob("*.list"):
        path.write_bytes(path.read_bytes()[:-5])
    assert greys([open_shards(pattern, tmp_path)[8]]) == [200]
    for place in (0, 9, 25, -1):
        for path in (tmp_path / "cache" / "lists").glob("*.list"):
            content = bytearray(path.read_bytes())
            content[place] ^= 1
            path.write_bytes(content)
        again = open_shards(pattern, tmp_path)
        assert greys([again[8]]) == [200] and len(again) == 27
    assert not list((tmp_path / "cache" / "lists").glob("*.part"))


def test_options_out_of_range_are_named_in_the_error(tmp_path):
    where = write_shards(tmp_path / "in")
    for options in (
        {"keep": 0},
        {"seed": -1},
        {"background": (0, 0, 256)},
        {"convert_image_to": "Foo"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            open_shards(where, tmp_path, **options)


def test_a_cache_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match=f"{tmp_path}/cache.*set cache_folder"):
        open_shards(write_shards(tmp_path / "in"), tmp_path)
