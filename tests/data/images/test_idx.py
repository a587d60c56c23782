"""Images in IDX files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_framework import IDX

FASHION = Path(__file__).resolve().parents[4] / "shared" / "data" / "fashion_mnist"
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0], dtype=np.uint8)


def idx(array):
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@pytest.fixture(params=["", ".gz"])
def folder(tmp_path, request):
    pack = gzip.compress if request.param else bytes
    for split, part in (("train", slice(None)), ("t10k", slice(2))):
        (tmp_path / f"{split}-images-idx3-ubyte{request.param}").write_bytes(
            pack(idx(IMAGES[part]))
        )
        (tmp_path / f"{split}-labels-idx1-ubyte{request.param}").write_bytes(
            pack(idx(LABELS[part]))
        )
    return tmp_path


def test_images_labels_and_splits_are_read_unchanged(folder):
    data = IDX(folder, (4, 6), labels=True)
    assert len(data) == 5 and data.class_names == ["0", "1", "2"]
    for i, (image, label) in enumerate(data):
        assert image.dtype == torch.uint8 and image.is_contiguous()
        assert (image.numpy() == IMAGES[i][None]).all() and label == LABELS[i]
    assert len(IDX(folder, (4, 6), split="test")) == 2


def test_larger_sizes_add_a_centred_border_and_rgb_repeats_grey(folder):
    image = IDX(folder, 9, 3)[1]
    assert image.shape == (3, 9, 9)
    assert (image[:, 2:6, 1:7].numpy() == IMAGES[1]).all()
    assert image.sum() == 3 * IMAGES[1].sum(dtype=np.int64)


def test_the_fingerprint_depends_on_pixels_and_image_size(folder):
    same, other = IDX(folder, (4, 6)), IDX(folder, (4, 6), split="test")
    assert same.fingerprint() == IDX(folder, (4, 6), labels=True).fingerprint()
    assert len({same.fingerprint(), other.fingerprint(), IDX(folder, 8).fingerprint()}) == 3


def test_bad_files_are_named_in_the_error(tmp_path):
    name = tmp_path / "train-images-idx3-ubyte"
    with pytest.raises(ValueError, match="got neither"):
        IDX(tmp_path)
    for content, message in (
        (idx(IMAGES)[:-1], "Expected .* bytes"),
        (idx(LABELS), "Expected an IDX file"),
        (b"", "Expected an IDX file"),
    ):
        name.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            IDX(tmp_path)
    name.unlink()
    name.with_suffix(".gz").write_bytes(gzip.compress(idx(IMAGES))[:-9])
    with pytest.raises(ValueError, match="Expected a readable IDX file"):
        IDX(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 5}, "image_size of at least"),
        ({"channels": 4}, "1 or 3"),
        ({"split": "all"}, "'train' or 'test'"),
    ],
)
def test_bad_options_are_named_in_the_error(folder, options, message):
    with pytest.raises(ValueError, match=message):
        IDX(folder, **{"image_size": 8, **options})


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"no {FASHION}")
def test_fashion_mnist_has_balanced_classes():
    data = IDX(FASHION, 32, split="test", labels=True)
    assert len(data) == 10_000 and len(data.class_names) == 10
    assert torch.bincount(data.labels).tolist() == [1000] * 10
    assert data[0][0].shape == (1, 32, 32)
