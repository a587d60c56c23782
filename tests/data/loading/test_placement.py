"""A cache of decoded images changes no result."""

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
from diffusion_framework.data.loading import cache as cache_module
from diffusion_framework.data.loading import placement
from diffusion_framework.data.loading.cache import CachedImages, DecodedImages
from diffusion_framework.data.loading.loader import ShuffledBatches, loaded_batches
from diffusion_framework.data.loading.memory import free_memory
from diffusion_framework.data.loading.placement import cached
from diffusion_framework.training import Loading


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (12, 9), dtype=np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


def test_runs_with_any_cache_and_workers_are_equal(folder, tmp_path):
    trainer(folder, tmp_path / "off", loading=Loading(0, "off"), train_num_steps=9).train()
    for place, workers in (("memory", 0), ("memory", 2), ("disk", 0), ("disk", 2), ("auto", 0)):
        run = tmp_path / f"{place} {workers}"
        trainer(folder, run, loading=Loading(workers, place), train_num_steps=9).train()
        assert_same_run(tmp_path / "off", run)
    assert len(list((tmp_path / "cache" / "diffusion_framework" / "images").iterdir())) == 1, "no other run kept a file"


def test_batches_are_the_same_before_and_after_all_are_decoded(folder):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    images = ImageFolder(folder, 8, 1)
    with loaded_batches(images, ShuffledBatches(10, 4, seed=1, start=2), 0, accelerator.device) as batches:
        expected = [next(batches) for _ in range(15)]
    for workers in (0, 2):
        order = ShuffledBatches(10, 4, seed=1, start=2)
        with (
            cached(images, "memory", accelerator) as kept,
            loaded_batches(kept, order, workers, accelerator.device) as batches,
        ):
            got = [next(batches) for _ in range(15)]
            assert kept.cache.full()
        assert all(torch.equal(one, other) for one, (other,) in zip(expected, got, strict=True))


def test_data_workers_end_once_all_is_decoded(folder):
    images, order = ImageFolder(folder, 8, 1), ShuffledBatches(10, 5, seed=1)
    accelerator = trainer(folder, folder.parent / "run").accelerator
    with cached(images, "memory", accelerator) as kept, loaded_batches(kept, order, 2, accelerator.device) as batches:
        next(batches)
        assert len(multiprocessing.active_children()) == 2
        for _ in range(4):
            next(batches)
        assert not multiprocessing.active_children()


def test_images_on_a_device_are_those_of_the_cache(folder, monkeypatch):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    with cached(ImageFolder(folder, 8, 1), "memory", accelerator) as kept:
        monkeypatch.setattr(cache_module, "_AT_ONCE", 4)
        there = DecodedImages(kept, accelerator.device)
        indices = np.array([3, 1, 3, 9])
        assert torch.equal(there.take(indices)[0].cpu(), kept.take(indices)[0])


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_two_processes_share_one_cache(folder, tmp_path, place):
    images = ImageFolder(folder, 8, 1)
    for cache in ("off", place):
        started = soak.start(tmp_path / cache, 2, data=images, loading=Loading(0, cache), train_num_steps=8)
        assert soak.end(started) == [0, 0]
    assert not soak.difference(tmp_path / "off", tmp_path / place)


def test_without_room_each_epoch_decodes_anew(folder):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    vast = ImageFolder(folder, 20_000)
    vast.paths *= 1000  # of a folder that large
    with (
        pytest.warns(UserWarning, match=r"10000 decoded images take 1\.2e\+04 GB.*too little room"),
        cached(vast, "auto", accelerator) as same,
    ):
        assert same is vast


def test_what_does_not_fit_the_memory_goes_to_the_disk(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda: 0)
    accelerator = trainer(folder, folder.parent / "run").accelerator
    with cached(ImageFolder(folder, 8, 1), "auto", accelerator) as kept:
        assert isinstance(kept, CachedImages)
    assert list((tmp_path / "cache").rglob("images/*"))


def test_a_disk_that_becomes_full_keeps_nothing(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(placement, "free_memory", lambda: 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    images, accelerator = ImageFolder(folder, 8, 1), trainer(folder, folder.parent / "run").accelerator
    with pytest.warns(UserWarning, match="No space left"), cached(images, "auto", accelerator) as same:
        assert same is images
    with pytest.raises(OSError, match="No space left.*set cache to memory or off"), cached(images, "disk", accelerator):
        pass
    assert not list((tmp_path / "cache").rglob("images/*"))


def test_a_cache_folder_that_cannot_be_made_is_an_error_if_it_was_asked_for(folder, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="set cache to memory or off"):
        trainer(folder, tmp_path / "run", loading=Loading(0, "disk")).train()
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(placement, "free_memory", lambda: 0)
    with pytest.warns(UserWarning, match=f"{tmp_path}/cache.*set XDG_CACHE_HOME.*decode them anew"):
        trainer(folder, tmp_path / "auto").train()


def test_memory_is_what_the_groups_of_the_process_leave_it(tmp_path):
    def limited(folder, limit, use, droppable):
        folder = tmp_path / folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((files[0], limit), (files[1], use), ("memory.stat", f"anon 5\n{files[2]} {droppable}")):
            (folder / name).write_text(f"{text}\n")

    groups = tmp_path / "groups"
    groups.write_text("4:cpu:/job\n3:memory:/job/step\n0::/slice/job/step\n")
    whole = free_memory(tmp_path / "none", groups)
    assert whole == pytest.approx(free_memory(tmp_path, tmp_path / "none"), rel=0.2)
    files = "memory.max", "memory.current", "inactive_file"
    limited("slice/job/step", "max", 800, 300)
    assert free_memory(tmp_path, groups) > 10_000
    limited("slice/job", 10_000, 1000, 400)
    assert free_memory(tmp_path, groups) == 9400
    files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    limited("memory", 2**63 - 4096, 10_000, 0)
    assert free_memory(tmp_path, groups) == 9400
    limited("memory/job/step", 5000, 1000, 200)
    assert free_memory(tmp_path, groups) == 4200


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_random_crops_cannot_be_kept(folder, tmp_path, place):
    with pytest.raises(ValueError, match="set loading.cache to auto or off"):
        trainer(ImageFolder(folder, 8, 1, crop="random"), tmp_path / "run", loading=Loading(0, place))
    assert not (tmp_path / "run").exists()
