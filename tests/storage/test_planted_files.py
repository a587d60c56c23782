"""A results folder of others may hold links and pipes; no run writes or deletes through them."""

import os
import shutil
import stat

import pytest
import torch
from runs import trainer, write

from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.storage.writing import write_export

IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def run_of(results, steps):
    return trainer(IMAGES, results, train_num_steps=steps, save_and_sample_every=1)


@pytest.fixture
def results(tmp_path):
    run_of(tmp_path / "run", steps=1).train()
    return tmp_path / "run"


def test_a_resumed_run_writes_through_no_link(results, tmp_path):
    victim = tmp_path / "victim"
    for name in ("log.csv", "validation.csv", ".log.csv.tmp", "samples/.step-00000002.png.tmp"):
        (results / name).unlink(missing_ok=True)
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).symlink_to(victim)
    victim.write_text("mine")
    run_of(results, steps=2).train(resume=True)
    assert victim.read_text() == "mine"
    (results / ".lock").unlink()
    (results / ".lock").symlink_to(victim)
    with pytest.raises(ValueError, match=r"\.lock: expected a file of this run, got a link"):
        run_of(results, steps=3).train(resume=True)
    assert victim.read_text() == "mine"


def test_links_in_place_of_checkpoints_are_deleted_but_not_what_they_lead_to(tmp_path):
    elsewhere = write(tmp_path / "other", step=1)
    parent = write(tmp_path / "run", step=2).parent
    (parent / "step-00000001").symlink_to(elsewhere)
    (parent / ".tmp-00000007").symlink_to(elsewhere)
    (parent / ".tmp-file").write_text("")
    write(tmp_path / "run", step=3, keep=2)
    assert sorted(os.listdir(parent)) == ["step-00000002", "step-00000003"]
    Checkpoint.open(elsewhere).verify()


def test_a_pipe_or_device_in_place_of_a_file_does_not_hang(results):
    checkpoint = list_checkpoints(results)[-1]
    for name in ("config.yaml", "ema.safetensors", "manifest.json"):
        for target in (None, "/dev/zero"):
            copy = shutil.copytree(checkpoint, results.parent / f"{name}-{target is None}")
            (copy / name).unlink()
            os.mkfifo(copy / name) if target is None else (copy / name).symlink_to(target)
            with pytest.raises((ValueError, OSError), match=r"\A[^\n]*Fix: [^\n]*\Z"):
                Checkpoint.open(copy)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_all_files_have_the_permissions_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = write(tmp_path / "run", step=1)
        write_export(tmp_path / "export", {"model": {"w": torch.zeros(2)}}, {})
        for path in (*folder.iterdir(), *(tmp_path / "export").iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path
    finally:
        os.umask(before)
