"""Folders of images: shapes, labels, options and fingerprints."""

import os
from pathlib import Path

import pytest
import torch
from grey_images import save

from diffusion_framework.data import ImageFolder

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (16, 40), (40, 16)])
def test_images_have_the_requested_shape(wide, channels, size):
    image = ImageFolder(wide, size, channels)[0]
    assert image.dtype == torch.uint8
    assert image.shape == (channels, *size)
    assert image.is_contiguous()


def test_labels_number_the_sorted_subfolders(tmp_path):
    for name in ("rose/1.png", "daisy/deep/2.png", "daisy/3.png", "tulip/4.png"):
        save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    dataset = ImageFolder(tmp_path, labels=True)
    assert dataset.class_names == ["daisy", "rose", "tulip"]
    assert [dataset.class_names[dataset[i][1]] for i in range(4)] == [
        p.split("/")[0] for p in dataset.paths
    ]
    assert ImageFolder(tmp_path).class_names == []
    save(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"stray\.png.*--data.labels false"):
        ImageFolder(tmp_path, labels=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels"),
        ({"image_size": (64, 0)}, "image_size"),
        ({"background": (0, 0, 256)}, "background"),
        ({"seed": -1}, "seed"),
        ({"convert_image_to": "grey"}, "convert_image_to.*'grey'"),
    ],
)
def test_bad_options_are_named_in_the_error(wide, options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(wide, **options)


def test_an_index_out_of_range_is_an_error(wide):
    for index in (-1, 1):
        with pytest.raises(IndexError):
            ImageFolder(wide)[index]


def test_the_fingerprint_depends_on_the_names_and_sizes_of_the_files(half_broken):
    before = ImageFolder(half_broken).fingerprint()
    assert ImageFolder(half_broken, 16, 1).fingerprint() == before
    os.utime(half_broken / "5.png", (1, 1))
    assert ImageFolder(half_broken).fingerprint() == before, "copies have other times"
    content = (half_broken / "5.png").read_bytes()
    (half_broken / "5.png").write_bytes(content + b"more")
    assert ImageFolder(half_broken).fingerprint() != before
    (half_broken / "5.png").write_bytes(content)
    (half_broken / "5.png").rename(half_broken / "6.png")
    assert ImageFolder(half_broken).fingerprint() != before


def test_a_folder_of_photographs():
    folder = SHARED / "flowers128"
    if not folder.is_dir():
        pytest.skip(f"needs the images of {folder.name}")
    dataset = ImageFolder(folder, labels=True)
    assert dataset.class_names == sorted(path.name for path in folder.iterdir() if path.is_dir())
    image, label = dataset[len(dataset) - 1]
    assert image.shape == (3, 64, 64)
    assert image.float().std() > 5
    assert label == len(dataset.class_names) - 1
