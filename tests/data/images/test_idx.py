"""Images in IDX files."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_framework.data import IDX

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


def test_every_flipped_byte_of_a_gzipped_file_is_noticed_or_harmless(tmp_path):
    whole, path = gzip.compress(idx(IMAGES), mtime=0), tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(whole)
    expected, errors = IDX(tmp_path, 8).images, []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert torch.equal(IDX(tmp_path, 8).images, expected)
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > len(whole) / 2
    assert all("Fix: " in error and "\n" not in error for error in errors)


def test_a_file_takes_no_more_memory_than_its_header_states(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(IMAGES) + bytes(2**27), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bytes of pixels in .*, got more\. Fix"):
        IDX(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    content = idx(IMAGES)
    path.write_bytes(gzip.compress(content[:4] + b"\xff" * 12 + content[16:]))
    with pytest.raises(ValueError, match=r"fit twice into .* GB of free memory, got \[4294967295"):
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
