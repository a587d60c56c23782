"""A cache of decoded images changes no result."""

import numpy as np
import pytest
import soak
import torch
from PIL import Image
from test_trainer import assert_same_run, trainer

from diffusion_framework import ImageFolder
from diffusion_framework.training.batches import DecodedImages, ShuffledBatches, loaded_batches
from diffusion_framework.training.caching import cached


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
    trainer(folder, tmp_path / "off", cache="off", train_num_steps=9).train()
    for place, workers in (("memory", 0), ("memory", 2), ("disk", 0), ("disk", 2), ("auto", 0)):
        run = tmp_path / f"{place} {workers}"
        trainer(folder, run, cache=place, train_num_steps=9, num_workers=workers).train()
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


def test_images_on_a_device_are_those_of_the_cache(folder):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    with cached(ImageFolder(folder, 8, 1), "memory", accelerator) as kept:
        there = DecodedImages(kept.take(np.arange(10)), accelerator.device)
        indices = np.array([3, 1, 3, 9])
        assert torch.equal(there.take(indices)[0].cpu(), kept.take(indices)[0])


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_two_processes_share_one_cache(folder, tmp_path, place):
    images = ImageFolder(folder, 8, 1)
    for cache in ("off", place):
        started = soak.start(tmp_path / cache, 2, data=images, cache=cache, train_num_steps=8)
        assert soak.end(started) == [0, 0]
    assert not soak.difference(tmp_path / "off", tmp_path / place)


def test_without_room_each_epoch_decodes_anew(folder):
    accelerator = trainer(folder, folder.parent / "run").accelerator
    vast = ImageFolder(folder, 20_000)
    vast.paths *= 1000  # of a folder that large
    with (
        pytest.warns(UserWarning, match=r"10000 decoded images take 1\.2e\+04 GB"),
        cached(vast, "auto", accelerator) as same,
    ):
        assert same is vast


def test_a_cache_folder_that_cannot_be_made_is_an_error(folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="set cache to memory or off"):
        trainer(folder, tmp_path / "run", cache="disk").train()


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_random_crops_cannot_be_kept(folder, tmp_path, place):
    with pytest.raises(ValueError, match="set cache to auto or off"):
        trainer(ImageFolder(folder, 8, 1, crop="random"), tmp_path / "run", cache=place)
    assert not (tmp_path / "run").exists()
