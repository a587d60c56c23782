"""Decoded images that are kept: always the right ones, whoever put them there."""

import errno
import fcntl
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from diffusion_framework import ImageFolder
from diffusion_framework.data.loading.cache import CachedImages, ImageCache, cache_folder, file_in_memory, file_on_disk


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Twelve images of two classes, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def cached(images, path):
    return CachedImages(images, ImageCache(path, len(images), (images.channels, *images.image_size)))


def missing(cache):
    return cache.get(np.arange(cache.count))[2]


def equal(taken, images, indices):
    drawn = [images.draw(index, 0) for index in indices.tolist()]
    return torch.equal(taken[0], torch.stack([image for image, _ in drawn])) and taken[1].tolist() == [
        label for _, label in drawn
    ]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_and_labels_are_those_of_the_folder(pictures, tmp_path, channels):
    images = ImageFolder(pictures, (7, 9), channels, labels=True)
    kept = cached(images, tmp_path / "file")
    rng = np.random.default_rng(1)
    for _ in range(10):
        indices = rng.integers(0, 12, 5)  # some twice, some again
        assert equal(kept.take(indices), images, indices)
    image, label = kept.draw(3, 1)
    assert torch.equal(image, images[3][0])
    assert label == images[3][1]


def test_each_image_is_decoded_once(pictures, tmp_path):
    kept = cached(ImageFolder(pictures, 8), tmp_path / "file")
    everything = np.arange(12)
    assert not kept.cache.full()
    (first,) = kept.take(everything)
    assert kept.cache.full()
    shutil.rmtree(pictures)
    assert torch.equal(kept.take(everything)[0], first)


def _take(kept, indices):
    kept.take(indices)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_one_process_decodes_is_there_for_all(pictures, method):
    with file_in_memory() as path:
        images = ImageFolder(pictures, 8, labels=True)
        kept = cached(images, path)
        halves = np.array_split(np.arange(12), 2)
        context = multiprocessing.get_context(method)
        others = [context.Process(target=_take, args=(kept, half)) for half in halves]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert kept.cache.full()
        assert missing(kept.cache) == []
        assert equal(kept.take(np.arange(12)), images, np.arange(12))
    if path.startswith("/proc"):
        assert not os.path.exists(path)


def test_a_damaged_image_is_decoded_again(pictures, tmp_path):
    images = ImageFolder(pictures, 8, labels=True)
    everything = np.arange(12)
    before = cached(images, tmp_path / "file")
    before.take(everything)
    row = (tmp_path / "file").stat().st_size // 12
    with open(tmp_path / "file", "r+b") as file:
        for index, place in ((2, 0), (5, 4), (7, row - 1)):  # its checksum, its label, its last pixel
            file.seek(index * row + place)
            (value,) = file.read(1)
            file.seek(index * row + place)
            file.write(bytes([value ^ 1]))
    again = cached(images, tmp_path / "file")
    for kept in (before, again):  # whoever found them whole, or did not look yet
        assert missing(kept.cache) == [2, 5, 7]
    assert equal(again.take(everything), images, everything)
    assert missing(before.cache) == missing(again.cache) == []


def test_a_black_image_of_label_0_is_told_from_none(tmp_path):
    cache = ImageCache(tmp_path / "file", 2, (1, 2, 2))
    cache.put(0, torch.zeros(1, 2, 2, dtype=torch.uint8), 0)
    assert missing(cache) == [1]
    assert not cache.full()


def test_pickled_it_is_the_same_file(tmp_path):
    cache = ImageCache(tmp_path / "file", 2, (1, 2, 2))
    other = pickle.loads(pickle.dumps(cache))
    other.put(1, torch.full((1, 2, 2), 7, dtype=torch.uint8), 3)
    images, labels, _ = cache.get(np.array([1]))
    assert images.unique().tolist() == [7]
    assert labels.tolist() == [3]


def test_on_disk_it_serves_the_next_run_until_an_image_or_pillow_changes(pictures, monkeypatch):
    images = ImageFolder(pictures, 8)
    first = file_on_disk(images)
    cached(images, first).take(np.arange(12))
    assert file_on_disk(ImageFolder(pictures, 8)) == first
    assert cached(images, first).cache.full()
    other = file_on_disk(ImageFolder(pictures, 9))
    assert other != first
    assert first.exists()

    changed = pictures / "a" / "0.png"
    before = changed.stat()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = file_on_disk(ImageFolder(pictures, 8))
    assert second != first
    assert not first.exists()
    assert not cached(ImageFolder(pictures, 8), second).take(np.array([0]))[0].any()
    (pictures / "b" / "1.png").unlink()
    third = file_on_disk(ImageFolder(pictures, 8))
    assert third != second
    monkeypatch.setattr(PIL, "__version__", "99")
    assert file_on_disk(ImageFolder(pictures, 8)) != third


def test_the_same_relative_name_elsewhere_is_another_folder(pictures, tmp_path, monkeypatch):
    shutil.copytree(pictures, tmp_path / "elsewhere" / "pictures")
    files = set()
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        files.add(file_on_disk(ImageFolder("pictures", 8)))
    assert len(files) == 2


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no system to reserve room on")
def test_room_can_be_reserved_where_the_system_writes_zeros_for_it(tmp_path, monkeypatch):
    """As the C library does on file systems that cannot; it refuses a file that is open for appending."""

    def write_zeros(descriptor, offset, size):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            raise OSError(errno.EBADF, "Bad file descriptor")
        for place in range(offset, offset + size):
            os.pwrite(descriptor, os.pread(descriptor, 1, place), place)

    monkeypatch.setattr(os, "posix_fallocate", write_zeros)
    cache = ImageCache(tmp_path / "file", 2, (1, 2, 2))
    cache.put(0, torch.ones(1, 2, 2, dtype=torch.uint8), 0)
    cache.reserve()
    assert missing(cache) == [1]


def test_a_cache_folder_that_cannot_be_made_is_named_with_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=f"{tmp_path}/file.*set XDG_CACHE_HOME"):
        cache_folder()


def test_what_differs_in_every_epoch_is_not_kept(pictures):
    assert ImageFolder(pictures, 8).worth_caching
    assert not ImageFolder(pictures, 8, crop="random").worth_caching


def test_deep_images_keep_their_depth(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (3, 8, 8), dtype=np.uint16)
    for name, picture in zip("abc", values, strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    folder = ImageFolder(tmp_path, 8, 1)
    with file_in_memory() as path:
        cached = CachedImages(folder, ImageCache(path, 3, (1, 8, 8), folder.bits))
        for _ in range(2):
            (images,) = cached.take(np.arange(3))
            assert images.dtype == torch.uint16
            np.testing.assert_array_equal(images[:, 0].numpy(), values)
        assert cached.cache.full() and cached.cache.size() == 3 * (4 + 4 + 2 * 64)
        again = pickle.loads(pickle.dumps(cached.cache))
        np.testing.assert_array_equal(again.get(np.array([2]))[0][0, 0].numpy(), values[2])
