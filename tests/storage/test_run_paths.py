"""Configs of checkpoints hold no absolute paths, and a run moves with its data."""

import os
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.storage.run_paths import absolute_from_run, relative_to_run

SMALL = [
    "--diffusion.model.dim=8",
    "--diffusion.model.dim_mults=[1]",
    "--diffusion.model.blocks=1",
    "--diffusion.model.image_size=8",
    "--diffusion.timesteps=2",
    "--trainer.train_batch_size=2",
    "--trainer.previews.every=0",
    "--trainer.loading.num_workers=0",
    "--trainer.logging.progress=false",
]
DEFAULT = Path(__file__).resolve().parents[2] / "configs" / "digits.yaml"


def train(*words):
    commands.train([*map(str, words)])


@pytest.fixture
def home(tmp_path):
    """A folder of someone, with pictures and a run trained on them by absolute paths."""
    home = tmp_path / "home" / "alice"
    (home / "pictures").mkdir(parents=True)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "pictures" / f"{i}.png")
    where = [f"--data.folder={home / 'pictures'}", f"--trainer.results_folder={home / 'run'}"]
    where += ["--validation=ImageFolder", f"--validation.folder={home / 'pictures'}"]
    train(*SMALL, *where, "--trainer.train_num_steps=1")
    return home


def test_no_file_of_a_checkpoint_names_the_folders_of_its_author(home):
    for file in Checkpoint.find(home / "run").path.iterdir():
        content = file.read_bytes()
        assert os.fsencode(home) not in content and b"alice" not in content, file
    config = Checkpoint.find(home / "run").config
    assert config["data"]["init_args"]["folder"] == "{run}/../pictures"
    assert config["validation"]["init_args"]["folder"] == "{run}/../pictures"
    assert "results_folder" not in config["trainer"]


def test_a_run_resumes_after_a_move_with_its_data_and_from_any_folder(home, tmp_path, monkeypatch):
    new = tmp_path / "new"
    shutil.move(home, new)
    monkeypatch.chdir(tmp_path)
    train("--resume", "--trainer.results_folder=new/run", "--trainer.train_num_steps=2")
    assert [path.name for path in list_checkpoints(new / "run")][-1] == "step-00000002"
    monkeypatch.chdir(new / "run")
    train("--resume", "--trainer.results_folder=.", "--trainer.train_num_steps=3")
    assert Checkpoint.find(new / "run").step == 3
    assert not home.exists()


def test_the_config_of_a_checkpoint_trains_again_on_the_same_data(home, tmp_path):
    config = Checkpoint.find(home / "run").path / "config.yaml"
    train(f"--config={config}", f"--trainer.results_folder={tmp_path / 'again'}")
    assert Checkpoint.find(tmp_path / "again").step == 1


def test_a_copied_run_is_resumed_where_it_lies(tmp_path, monkeypatch):
    """Its config must not lead back to the folder where it was trained."""
    monkeypatch.chdir(tmp_path)
    train(*SMALL, "--trainer.train_num_steps=1", "--trainer.results_folder=elsewhere")
    shutil.copytree("elsewhere", "results/digits")
    train("--resume", "--trainer.train_num_steps=2")
    assert Checkpoint.find("results/digits").step == 2
    assert Checkpoint.find("elsewhere").step == 1


def test_only_absolute_paths_change_and_all_come_back(tmp_path):
    tree = {
        "a": [str(tmp_path / "x-{000..099}.tar"), "s3://bucket/a.tar", "relative/a", "word", 3],
        "b": {"c": str(tmp_path), "d": None, "e": "/"},
    }
    stored = relative_to_run(tree, tmp_path / "run")
    assert stored["a"] == ["{run}/../x-{000..099}.tar", *tree["a"][1:]]
    assert absolute_from_run(stored, tmp_path / "run") == tree
    moved = absolute_from_run(stored, tmp_path / "new" / "run")
    assert moved["b"]["c"] == str(tmp_path / "new")
