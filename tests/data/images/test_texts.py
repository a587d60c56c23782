"""Texts of a dataset: equal to a list of strings, in memory that data workers share."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys

import psutil
import pytest
from grey_images import save

from diffusion_framework.data import ImageFolder
from diffusion_framework.data.images.texts import Texts

NAMES = ["a.png", "", "ä/ö b.png", "line\nbreak.png", os.fsdecode(b"\xff.png")]


def test_paths_are_those_that_were_given():
    paths = Texts(NAMES)
    assert paths == NAMES and len(paths) == 5 and list(paths) == NAMES
    assert [paths[i - 5] for i in range(5)] == NAMES and paths[1:4:2] == NAMES[1:4:2]
    assert paths != NAMES[:4] and pickle.loads(pickle.dumps(paths)) == NAMES
    assert len(Texts([])) == 0
    for index in (5, -6):
        with pytest.raises(IndexError):
            paths[index]


def test_a_folder_holds_no_python_object_for_each_image(tmp_path):
    for i in range(30):
        save(tmp_path / f"{i % 3}" / f"{i}.png")
    dataset = ImageFolder(tmp_path, labels=True)
    for value in vars(dataset).values():
        assert not isinstance(value, list) or len(value) < 30 or value is dataset.extensions
    assert [dataset[i][1] for i in range(30)] == [i // 10 for i in range(30)]


def private_memory_of_reading(paths, results) -> None:
    before = psutil.Process().memory_full_info().uss
    for path in paths:
        len(path)
    results.put(psutil.Process().memory_full_info().uss - before)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork data workers")
def test_a_forked_worker_that_reads_all_paths_copies_none():
    fork = multiprocessing.get_context("fork")
    names = [f"folder/of/some/length/{i:09}.png" for i in range(200_000)]
    growth = {}
    for paths in (Texts(names), names):
        results = fork.SimpleQueue()
        worker = fork.Process(target=private_memory_of_reading, args=(paths, results))
        worker.start()
        growth[type(paths)] = results.get()
        worker.join()
    assert growth[list] > 10e6, "a list of strings is copied page by page"
    assert growth[Texts] < growth[list] / 4
