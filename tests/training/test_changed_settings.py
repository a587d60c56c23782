"""A resumed run names each setting that differs from before, and nothing else."""

import json
import subprocess
import warnings

import numpy as np
import pytest
from PIL import Image
from runs import rewrite, trainer

from diffusion_framework import ImageFolder
from diffusion_framework.storage.checkpoint import list_checkpoints
from diffusion_framework.training import Compute
from diffusion_framework.training.environment import _revision, environment


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def run_of(pictures, results, data=None, validation=None, **options):
    dataset = ImageFolder(pictures, image_size=8, channels=1, **(data or {}))
    if validation is not None:
        options["validation"] = ImageFolder(pictures, image_size=8, channels=1, **validation)
    return trainer(dataset, results, train_num_steps=1, save_and_sample_every=1, **options)


@pytest.fixture(scope="module")
def results(pictures, tmp_path_factory):
    results = tmp_path_factory.mktemp("changed") / "run"
    run_of(pictures, results, validation={}).train()
    return results


def said(run):
    """Returns the changes that a resumed run names."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.check(run_start())
    texts = [str(one.message) for one in caught]
    (text,) = [text for text in texts if "differs from before" in text] or [""]
    return text.partition("before: ")[2]


def run_start():
    from diffusion_framework.training.starting import Start

    return Start(resume=True)


@pytest.mark.parametrize(
    ("data", "change"),
    [
        ({"crop": "random"}, "data.crop: center before, random now"),
        ({"background": (0, 0, 0)}, "data.background: [255, 255, 255] before, [0, 0, 0] now"),
        ({"broken": "skip"}, "data.broken: error before, skip now"),
        ({"convert_image_to": "L"}, "data.convert_image_to: None before, L now"),
        ({"fit": "pad"}, "data.fit: crop before, pad now"),
        ({"seed": 3}, "data.seed: 0 before, 3 now"),
        ({"value_range": (0, 99)}, "data.value_range: None before, [0, 99] now"),
        ({"extensions": ["png"]}, "data.extensions: None before, ['png'] now"),
    ],
    ids=str,
)
def test_changed_settings_of_the_data_are_named(pictures, results, data, change):
    assert said(run_of(pictures, results, data, validation={})) == change
    validated = said(run_of(pictures, results, validation=data))
    assert validated == change.replace("data.", "validation.")


def test_nothing_is_said_where_nothing_changed(pictures, results):
    assert said(run_of(pictures, results, validation={})) == ""


def test_the_trainers_own_conversion_and_computation_are_named(pictures, results):
    run = run_of(pictures, results, validation={}, compute=Compute(find_unused_parameters=True))
    assert said(run) == "compute.find_unused_parameters: False before, True now"
    direct = trainer(
        pictures, results, train_num_steps=1, save_and_sample_every=1, convert_image_to="RGB"
    )
    assert "data.convert_image_to: None before, RGB now" in said(direct)


@pytest.mark.parametrize("name", ["processes", "diffusion_framework", "torch"])
def test_another_environment_is_named(pictures, results, name):
    checkpoint = list_checkpoints(results)[-1]
    before = {file: file.read_bytes() for file in checkpoint.iterdir()}
    state = json.loads(before[checkpoint / "state.json"])
    assert state["environment"] == environment()
    state["environment"][name] = "other"
    rewrite(checkpoint, "state.json", json.dumps(state).encode())
    try:
        now = environment()[name]
        assert said(run_of(pictures, results, validation={})) == f"{name}: other before, {now} now"
    finally:
        for file, data in before.items():
            file.write_bytes(data)


@pytest.mark.parametrize("packed", [False, True])
def test_the_revision_of_a_repository_is_known(tmp_path, packed):
    def git(*words):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    if packed:
        git("pack-refs", "--all")
    commit = git("rev-parse", "HEAD")
    git("worktree", "add", "-q", "tree", "-b", "other")
    assert _revision(tmp_path / ".git") == _revision(tmp_path / "tree" / ".git") == commit
    git("checkout", "-q", "--detach")
    assert _revision(tmp_path / ".git") == commit
    assert _revision(tmp_path / "nothing" / ".git") is None
