"""Training on shards: exact resumption, and the command line."""

import os
from pathlib import Path

import commands
import faulty
import pytest
import soak
from tar_shards import FAULTS, open_shards, png, write_damaged, write_shards

from diffusion_framework.storage.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[3]
SMALL = """
--diffusion.model.dim=8 --diffusion.model.dim_mults=[1,2] --diffusion.model.image_size=8
--diffusion.timesteps=4 --trainer.train_num_steps=2 --trainer.train_batch_size=4
--trainer.num_samples=4 --trainer.previews.sampling_steps=2 --trainer.loading.num_workers=0
--trainer.logging.progress=false --data=Shards
"""


def train(*words):
    """Runs the training command on shards, with a tiny network."""
    commands.train([*SMALL.split(), *map(str, words)])


def test_a_killed_and_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path):
    """Two processes with a data worker each read remote shards and keep 5 copies of the 9."""
    pytest.importorskip("fsspec", reason="remote shards need fsspec")
    where = "local://" + write_shards(tmp_path / "in", [5, 9, 7, 8, 9, 6, 5, 7, 8])
    runs = {
        name: {"data": open_shards(where, tmp_path / name, keep=5)}
        for name in ("uninterrupted", "killed")
    }
    for options in runs.values():
        options |= {"workers": 1, "train_batch_size": 4, "train_num_steps": 16}
    assert soak.end(soak.start(tmp_path / "run of uninterrupted", 2, **runs["uninterrupted"])) == [
        0,
        0,
    ]
    started = soak.start(
        tmp_path / "run of killed", 2, target=faulty.killed_in_third_save, **runs["killed"]
    )
    started[0].join(60)
    started[1].kill()  # it waits for the first process
    assert soak.end(started) == [-9, -9]
    assert Checkpoint.find(tmp_path / "run of killed").step == 8
    assert soak.end(soak.start(tmp_path / "run of killed", 2, **runs["killed"])) == [0, 0]
    assert not soak.difference(tmp_path / "run of uninterrupted", tmp_path / "run of killed")
    for name in runs:
        assert 1 <= len(list((tmp_path / name / "cache").rglob("*.tar"))) <= 5


def test_the_command_line_trains_on_shards_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    where = write_shards(tmp_path / "in")
    words = ["--data.labels=true", "--diffusion.model.num_classes=7", f"--data.shards={where}"]
    words += ["--validation=Shards", "--validation.labels=true", f"--validation.shards=['{where}']"]
    train(*words, f"--trainer.results_folder={tmp_path / 'run'}")
    words = [
        f"--trainer.results_folder={tmp_path / 'run'}",
        "--resume",
        "--trainer.train_num_steps=3",
    ]
    commands.train(words)
    config = Checkpoint.find(tmp_path / "run").config
    assert config["data"]["class_path"] == "diffusion_framework.Shards"
    stored = config["data"]["init_args"]["shards"].replace("{run}", str(tmp_path / "run"))
    assert os.path.normpath(stored) == where
    assert config["trainer"]["train_num_steps"] == 3
    assert list((tmp_path / "caches" / "diffusion_framework" / "lists").glob("*.list"))
    changed = tmp_path / "in" / "part-03.tar"
    changed.write_bytes(changed.read_bytes().replace(png(13), png(99)))
    with pytest.warns(UserWarning, match="differs from before: .*images: "):
        commands.train([*words[:2], "--trainer.train_num_steps=4"])


@pytest.mark.parametrize("fault", [*FAULTS, "{0..x}"])
def test_the_command_line_reports_bad_shards_on_one_line(tmp_path, monkeypatch, capsys, fault):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    path = write_damaged(tmp_path).get(fault, fault)
    with pytest.raises(SystemExit) as end:
        train(
            f"--data.shards={path}",
            "--data.labels=true",
            f"--trainer.results_folder={tmp_path / 'run'}",
        )
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and len(error) < 400
    assert not (tmp_path / "run").exists()
