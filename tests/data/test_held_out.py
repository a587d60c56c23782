"""A share of the data that is held out of training."""

import shutil

import commands
import numpy as np
import pytest
import torch
from runs import assert_same_run, trainer

from diffusion_framework.data import Digits, ImageFolder
from diffusion_framework.data.held_out import hold_out
from diffusion_framework.data.wrapped import as_dataset
from diffusion_framework.policies import ForkDemonstrations
from diffusion_framework.storage.checkpoint import Checkpoint

SMALL = [
    "--diffusion.model.dim=8",
    "--diffusion.model.dim_mults=[1,2]",
    "--diffusion.model.blocks=1",
    "--diffusion.model.channels=1",
    "--diffusion.model.image_size=4",
    "--diffusion.timesteps=4",
    "--trainer.train_num_steps=2",
    "--trainer.save_and_sample_every=1",
    "--trainer.previews.every=0",
    "--trainer.logging.progress=false",
    "--trainer.train_batch_size=4",
    "--trainer.validation_options.samples=8",
]


def rows(dataset):
    samples = [dataset.draw(index, 0) for index in range(len(dataset))]
    return [s[0] if isinstance(s, tuple) else s for s in samples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of three classes of 40, 20 and 10 files, each of another brightness."""
    from PIL import Image

    root = tmp_path_factory.mktemp("classes")
    number = 0
    for name, count in (("a", 40), ("b", 20), ("c", 10)):
        (root / name).mkdir()
        for index in range(count):
            Image.new("L", (4, 4), number := number + 1).save(root / name / f"{index}.png")
    return root


@pytest.mark.parametrize("kind", ["folder", "digits", "tensor"])
def test_the_two_parts_are_the_whole_and_the_seed_chooses(kind, folder):
    whole = {
        "folder": lambda: ImageFolder(folder, 4, 1),
        "digits": lambda: Digits(split="test"),
        "tensor": lambda: as_dataset(torch.arange(70.0).reshape(70, 1, 1, 1) / 70),
    }[kind]()
    training, held = hold_out(whole, 0.2, seed=3)
    assert len(held) == round(0.2 * len(whole))
    found = torch.stack([*rows(training), *rows(held)])
    both = sorted(map(tuple, found.flatten(1).tolist()))
    assert both == sorted(map(tuple, torch.stack(rows(whole)).flatten(1).tolist()))
    again, other = hold_out(whole, 0.2, seed=3)[1], hold_out(whole, 0.2, seed=4)[1]
    assert again.fingerprint() == held.fingerprint() != other.fingerprint()
    indices = np.array([2, 0])
    taken = held.take(indices)
    taken = taken[0] if isinstance(taken, list | tuple) else taken
    assert torch.equal(taken, torch.stack([rows(held)[2], rows(held)[0]]))
    assert training.fingerprint() != whole.fingerprint()


def test_the_share_is_taken_of_each_class(folder):
    training, held = hold_out(ImageFolder(folder, 4, 1, labels=True), 0.2, seed=0)
    assert np.bincount(held.class_labels()).tolist() == [8, 4, 2]
    assert np.bincount(training.class_labels()).tolist() == [32, 16, 8]
    assert held.class_names == ["a", "b", "c"]
    assert training.worth_caching and "56 images" in training.describe()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan"), 1e-9])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ValueError, match=r"Expected .*share .* Fix: "):
        hold_out(Digits(), share, 0)


def test_data_that_cannot_be_split_say_so(tmp_path):
    with pytest.raises(ValueError, match="whole episodes .* Fix: "):
        hold_out(
            ForkDemonstrations(episodes=4, horizon=4, observation_steps=1, action_steps=2), 0.5, 0
        )


def test_a_run_with_a_share_resumes_exactly(tmp_path):
    def run(name, steps):
        options = {"validation": 0.25, "save_and_sample_every": 2, "train_num_steps": steps}
        return trainer(torch.rand(32, 1, 8, 8), tmp_path / name, **options)

    torch.manual_seed(0)
    run("whole", 4).train()
    torch.manual_seed(0)
    run("parts", 2).train()
    torch.manual_seed(0)
    run("parts", 4).train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert (tmp_path / "whole/validation.csv").read_bytes() == (
        tmp_path / "parts/validation.csv"
    ).read_bytes()


def test_the_flag_alone_holds_out_a_tenth(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "photos")
    words = ["photos", *SMALL]
    commands.train([*words, "--validation", "--trainer.results_folder=alone"])
    assert "63 images" in capsys.readouterr().out
    assert Checkpoint.find("alone").config["validation"] == 0.1
    commands.train([*words, "--validation", "0.2", "--trainer.results_folder=share"])
    config = Checkpoint.find("share").config
    assert config["validation"] == 0.2
    assert config["data"]["class_path"] == "diffusion_framework.ImageFolder"
    before = capsys.readouterr().out
    assert "56 images" in before
    commands.train(["--resume", "--trainer.results_folder=share", "--trainer.train_num_steps=3"])
    assert "56 images" in capsys.readouterr().out
    capsys.readouterr()
    resumed = ["--resume", "--trainer.results_folder=share", "--trainer.train_num_steps=6"]
    commands.train([*resumed, "--dry_run"])
    assert "resumed     from step 3\nmeasuring a step ...\nmemory " in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        commands.train([*words, "--validation=1.5", "--trainer.results_folder=other"])
    assert end.value.code == 2
    assert "between 0 and 1, got 1.5. Fix: " in capsys.readouterr().err
