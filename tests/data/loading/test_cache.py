"""The cache of decoded images: correct with damaged files, changed images and many processes."""

import errno
import fcntl
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import tempfile

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from diffusion_framework import ImageFolder
from diffusion_framework.data.loading.cache import (
    CachedImages,
    cache_folder,
    file_in_memory,
    file_on_disk,
)
from diffusion_framework.data.loading.cache_file import ImageCache, cache_size, row_type


@pytest.fixture
def image_folder(tmp_path, monkeypatch):
    """A folder of twelve images of two classes, with its own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def cached(images, path):
    """Returns the images with a cache in the file `path`."""
    return CachedImages(
        images, ImageCache(path, len(images), (images.channels, *images.image_size))
    )


def missing(cache):
    """Returns the indices that the cache lacks."""
    return cache.get(np.arange(cache.count))[2]


def equal(taken, images, indices):
    """Returns whether a batch equals the images and labels drawn one by one."""
    drawn = [images.draw(index, 0) for index in indices.tolist()]
    same_images = torch.equal(taken[0], torch.stack([image for image, _ in drawn]))
    return same_images and taken[1].tolist() == [label for _, label in drawn]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_cached_images_and_labels_equal_those_of_the_folder(image_folder, tmp_path, channels):
    images = ImageFolder(image_folder, (7, 9), channels, labels=True)
    cached_images = cached(images, tmp_path / "file")
    rng = np.random.default_rng(1)
    for _ in range(10):
        indices = rng.integers(0, 12, 5)  # some repeated, some cached
        assert equal(cached_images.take(indices), images, indices)
    image, label = cached_images.draw(3, 1)
    assert torch.equal(image, images[3][0])
    assert label == images[3][1]


def test_each_image_is_decoded_once(image_folder, tmp_path):
    cached_images = cached(ImageFolder(image_folder, 8), tmp_path / "file")
    everything = np.arange(12)
    assert not cached_images.cache.full()
    (first,) = cached_images.take(everything)
    assert cached_images.cache.full()
    shutil.rmtree(image_folder)
    assert torch.equal(cached_images.take(everything)[0], first)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_images_decoded_by_one_process_are_cached_for_all(image_folder, method):
    with file_in_memory() as path:
        images = ImageFolder(image_folder, 8, labels=True)
        cached_images = cached(images, path)
        halves = np.array_split(np.arange(12), 2)
        context = multiprocessing.get_context(method)
        others = [context.Process(target=cached_images.take, args=(half,)) for half in halves]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert cached_images.cache.full()
        assert missing(cached_images.cache) == []
        assert equal(cached_images.take(np.arange(12)), images, np.arange(12))
    if path.startswith("/proc"):
        assert not os.path.exists(path)


def test_a_damaged_image_is_decoded_again(image_folder, tmp_path):
    images = ImageFolder(image_folder, 8, labels=True)
    everything = np.arange(12)
    before = cached(images, tmp_path / "file")
    before.take(everything)
    row = row_type((3, 8, 8)).itemsize
    header = cache_size(0, (3, 8, 8))
    assert (tmp_path / "file").stat().st_size == header + 12 * row
    with open(tmp_path / "file", "r+b") as file:
        for index, place in ((2, 0), (5, 4), (7, row - 1)):  # checksum, label, pixel
            file.seek(header + index * row + place)
            (value,) = file.read(1)
            file.seek(header + index * row + place)
            file.write(bytes([value ^ 1]))
    again = cached(images, tmp_path / "file")
    for cached_images in (before, again):  # opened before and after the damage
        assert missing(cached_images.cache) == [2, 5, 7]
    assert equal(again.take(everything), images, everything)
    assert missing(before.cache) == missing(again.cache) == []


def test_a_black_image_of_label_0_is_not_missing(tmp_path):
    cache = ImageCache(tmp_path / "file", 2, (1, 2, 2))
    cache.put(0, torch.zeros(1, 2, 2, dtype=torch.uint8), 0)
    assert missing(cache) == [1]
    assert not cache.full()


def test_a_pickled_cache_is_the_same_file(tmp_path):
    cache = ImageCache(tmp_path / "file", 2, (1, 2, 2))
    other = pickle.loads(pickle.dumps(cache))
    other.put(1, torch.full((1, 2, 2), 7, dtype=torch.uint8), 3)
    images, labels, _ = cache.get(np.array([1]))
    assert images.unique().tolist() == [7]
    assert labels.tolist() == [3]


def test_the_next_run_finds_the_file_until_images_or_pillow_change(image_folder, monkeypatch):
    images = ImageFolder(image_folder, 8)
    first = file_on_disk(images)
    cached(images, first).take(np.arange(12))
    assert file_on_disk(ImageFolder(image_folder, 8)) == first
    assert cached(images, first).cache.full()
    other = file_on_disk(ImageFolder(image_folder, 9))
    assert other != first
    assert first.exists()

    changed = image_folder / "a" / "0.png"
    before = changed.stat()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = file_on_disk(ImageFolder(image_folder, 8))
    assert second != first
    assert not first.exists()
    assert not cached(ImageFolder(image_folder, 8), second).take(np.array([0]))[0].any()
    (image_folder / "b" / "1.png").unlink()
    third = file_on_disk(ImageFolder(image_folder, 8))
    assert third != second
    monkeypatch.setattr(PIL, "__version__", "99")
    assert file_on_disk(ImageFolder(image_folder, 8)) != third


def test_equal_relative_names_in_two_folders_are_two_caches(image_folder, tmp_path, monkeypatch):
    shutil.copytree(image_folder, tmp_path / "elsewhere" / "images")
    files = set()
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        files.add(file_on_disk(ImageFolder("images", 8)))
    assert len(files) == 2


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_reserving_keeps_images_where_the_c_library_writes_zeros(tmp_path, monkeypatch):
    """It does so on file systems without fallocate, and refuses files in append mode."""

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


def test_a_cache_folder_that_cannot_be_made_is_an_error_with_a_fix(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=f"{tmp_path}/file.*set XDG_CACHE_HOME"):
        cache_folder()


def test_random_crops_are_not_worth_caching(image_folder):
    assert ImageFolder(image_folder, 8).worth_caching
    assert not ImageFolder(image_folder, 8, crop="random").worth_caching


def test_16_bit_images_keep_their_depth(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (3, 8, 8), dtype=np.uint16)
    for name, image in zip("abc", values, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
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


def test_a_cache_without_files_in_memory_can_be_opened_twice(monkeypatch, tmp_path):
    """On Windows, an open temporary file cannot be opened again."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with file_in_memory() as path:
        assert not os.path.exists(path), "nobody holds it open"
        one, other = (ImageCache(path, 2, (1, 2, 2)) for _ in range(2))
        one.put(1, torch.full((1, 2, 2), 7, dtype=torch.uint8), 3)
        images, labels, missing = other.get(np.arange(2))
        assert images[1].eq(7).all() and labels[1] == 3 and missing == [0]
    assert not list(tmp_path.iterdir())


def test_a_file_cut_short_under_a_run_is_filled_again(image_folder):
    """A mapped file would end the process by SIGBUS."""
    images = ImageFolder(image_folder, 8, labels=True)
    everything, path = np.arange(12), file_on_disk(images)
    running = cached(images, path)
    before = running.take(everything)
    for size in (0, 70, 1500):
        os.truncate(path, size)
        assert not running.cache.full()
        assert all(map(torch.equal, running.take(everything), before))
        assert running.cache.full() and missing(running.cache) == []
    os.truncate(path, 0)
    assert all(map(torch.equal, cached(images, path).take(everything), before))


def test_a_full_disk_is_said_once_and_images_are_decoded_again(image_folder):
    images = ImageFolder(image_folder, 8)
    path = file_on_disk(images)
    running = cached(images, path)
    before = running.take(np.arange(12))
    os.truncate(path, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.warns(UserWarning, match="The disk is full") as caught:
            again = [running.take(np.arange(12))[0] for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(caught) == 1
    assert all(torch.equal(images, before[0]) for images in again)


@pytest.mark.parametrize(
    "fault", ["link", "hard link", "mode", "owner", "folder", "pipe", "header"]
)
def test_only_own_files_of_the_cache_are_trusted(image_folder, tmp_path, fault):
    """Whatever lies in the place of the file is neither read nor written to."""
    images = ImageFolder(image_folder, 8)
    path, victim = file_on_disk(images), tmp_path / "victim"
    cached(images, path).take(np.arange(12))
    if fault in ("link", "hard link"):
        path.rename(victim)
        (path.symlink_to if fault == "link" else path.hardlink_to)(victim)
    elif fault == "mode":
        path.chmod(0o666)
    elif fault == "owner":
        if os.geteuid():
            pytest.skip("only root may give files away")
        os.chown(path, 65534, 65534)
    elif fault == "header":
        path.write_bytes(b"x" * 5000)
    else:
        path.unlink()
        (path.mkdir if fault == "folder" else lambda: os.mkfifo(path))()
    before = victim.read_bytes() if victim.exists() else b""
    if fault == "folder":
        with pytest.raises(OSError, match="Expected a cache file of this user, got .*Fix: delete"):
            file_on_disk(images)
        return
    if fault != "header":
        with pytest.raises(OSError, match="Expected a cache file of this user, got .*Fix: delete"):
            cached(images, path)
    again = cached(images, file_on_disk(images))
    assert len(missing(again.cache)) == 12
    assert again.take(np.arange(12))[0].any() and again.cache.full()
    assert (victim.read_bytes() if victim.exists() else b"") == before
    assert path.stat().st_mode & 0o777 == 0o600 and not path.is_symlink()


def test_the_version_of_a_folder_follows_both_times_and_the_inode(image_folder):
    version = ImageFolder(image_folder).version
    before, path = version(), image_folder / "a" / "0.png"
    assert version() == before
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert version() != before, "size and time of change are set back, the other time is not"
