"""Runs with and without a cache of decoded images: equal results, and fallbacks."""

import errno
import multiprocessing
import os

import numpy as np
import pytest
import soak
import torch
from PIL import Image
from runs import assert_same_run, trainer

from diffusion_framework import ImageFolder
from diffusion_framework.data.images.texts import Texts
from diffusion_framework.data.loading import cache as cache_module
from diffusion_framework.data.loading import placement
from diffusion_framework.data.loading.cache import CachedImages, DecodedImages
from diffusion_framework.data.loading.loader import ShuffledBatches, loaded_batches
from diffusion_framework.data.loading.placement import cached
from diffusion_framework.training import Loading


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (12, 9), dtype=np.uint8)).save(
            tmp_path / "images" / f"{i}.png"
        )
    return tmp_path / "images"


def test_runs_are_equal_with_any_cache_and_workers(folder, tmp_path):
    trainer(folder, tmp_path / "off", loading=Loading(0, "off"), train_num_steps=9).train()
    for place, workers in (("memory", 0), ("memory", 2), ("disk", 0), ("disk", 2), ("auto", 0)):
        run = tmp_path / f"{place} {workers}"
        trainer(folder, run, loading=Loading(workers, place), train_num_steps=9).train()
        assert_same_run(tmp_path / "off", run)
    assert len(list((tmp_path / "cache" / "diffusion_framework" / "images").iterdir())) == 1, (
        "only the runs with disk keep a file"
    )


def test_batches_are_equal_before_and_after_the_cache_is_full(folder):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    images = ImageFolder(folder, 8, 1)
    with loaded_batches(
        images, ShuffledBatches(10, 4, seed=1, start=2), 0, accelerator.device
    ) as batches:
        expected = [next(batches) for _ in range(15)]
    for workers in (0, 2):
        order = ShuffledBatches(10, 4, seed=1, start=2)
        with (
            cached(images, "memory", accelerator) as cached_images,
            loaded_batches(cached_images, order, workers, accelerator.device) as batches,
        ):
            got = [next(batches) for _ in range(15)]
            assert cached_images.cache.full()
        assert all(torch.equal(one, other) for one, (other,) in zip(expected, got, strict=True))


def test_data_workers_end_once_the_cache_is_full(folder):
    images, order = ImageFolder(folder, 8, 1), ShuffledBatches(10, 5, seed=1)
    before = {child.pid for child in multiprocessing.active_children()}

    def started():
        return {child.pid for child in multiprocessing.active_children()} - before

    accelerator = trainer(folder, folder.parent / "run").accelerator
    with (
        cached(images, "memory", accelerator) as cached_images,
        loaded_batches(cached_images, order, 2, accelerator.device) as batches,
    ):
        next(batches)
        assert len(started()) == 2
        for _ in range(4):
            next(batches)
        assert not started()


def test_images_on_a_device_equal_those_in_the_cache(folder, monkeypatch):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    with cached(ImageFolder(folder, 8, 1), "memory", accelerator) as cached_images:
        monkeypatch.setattr(cache_module, "_TRANSFER_SIZE", 4)
        on_device = DecodedImages(cached_images, accelerator.device)
        indices = np.array([3, 1, 3, 9])
        assert torch.equal(on_device.take(indices)[0].cpu(), cached_images.take(indices)[0])


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_two_processes_share_one_cache(folder, tmp_path, place):
    images = ImageFolder(folder, 8, 1)
    for cache in ("off", place):
        started = soak.start(
            tmp_path / cache, 2, data=images, loading=Loading(0, cache), train_num_steps=8
        )
        assert soak.end(started) == [0, 0]
    assert not soak.difference(tmp_path / "off", tmp_path / place)


def test_without_room_images_are_not_cached(folder):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    huge = ImageFolder(folder, 20_000)
    huge.paths = Texts(huge.paths[:] * 1000)
    with (
        pytest.warns(
            UserWarning, match=r"10000 decoded images take 1\.2e\+04 GB.*too little free space"
        ),
        cached(huge, "auto", accelerator) as same,
    ):
        assert same is huge


def test_images_that_do_not_fit_in_memory_are_cached_on_disk(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda: 0)
    accelerator = trainer(folder, folder.parent / "run").accelerator
    with cached(ImageFolder(folder, 8, 1), "auto", accelerator) as cached_images:
        assert isinstance(cached_images, CachedImages)
    assert list((tmp_path / "cache").rglob("images/*"))


def test_a_full_disk_leaves_no_cache_file(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(placement, "free_memory", lambda: 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    images = ImageFolder(folder, 8, 1)
    accelerator = trainer(folder, folder.parent / "run").accelerator
    with (
        pytest.warns(UserWarning, match="No space left"),
        cached(images, "auto", accelerator) as same,
    ):
        assert same is images
    with (
        pytest.raises(OSError, match="No space left.*set cache to memory or off"),
        cached(images, "disk", accelerator),
    ):
        pass
    assert not list((tmp_path / "cache").rglob("images/*"))


def test_a_cache_folder_that_cannot_be_made_is_an_error_only_if_requested(
    folder, tmp_path, monkeypatch
):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="set cache to memory or off"):
        trainer(folder, tmp_path / "run", loading=Loading(0, "disk")).train()
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(placement, "free_memory", lambda: 0)
    with pytest.warns(
        UserWarning, match=f"{tmp_path}/cache.*set XDG_CACHE_HOME.*decode them again"
    ):
        trainer(folder, tmp_path / "auto").train()


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_random_crops_cannot_be_cached(folder, tmp_path, place):
    with pytest.raises(ValueError, match="set loading.cache to auto or off"):
        trainer(
            ImageFolder(folder, 8, 1, crop="random"), tmp_path / "run", loading=Loading(0, place)
        )
    assert not (tmp_path / "run").exists()
