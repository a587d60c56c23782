"""Files and classes of sample.py: names of classes, scales of pictures, values of other data."""

from __future__ import annotations

import shutil

import commands
import numpy as np
import pytest
import torch
from PIL import Image
from toys import QUIET, Plain, tiny_unet

from diffusion_framework import GaussianDiffusion, ImageFolder, Trainer
from diffusion_framework.cli.classes import chosen_classes
from diffusion_framework.cli.outputs import Outputs
from diffusion_framework.cli.sample import _write
from diffusion_framework.spaces import ImageSpace
from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.storage.manifest import DamagedCheckpoint

NAMES = ["daisy", "rose", "sun flower"]


def test_names_and_numbers_choose_classes():
    assert chosen_classes(["rose", 0, "2", "sun flower"], 3, NAMES) == [1, 0, 2, 2]
    assert chosen_classes(None, 3, NAMES) == [0, 1, 2] and chosen_classes(None, None, []) == []
    assert chosen_classes([2, "10", 1], 3, ["10", "2", "x"]) == [1, 0, 1], "names come first"


@pytest.mark.parametrize(
    ("asked", "count", "names", "message"),
    [
        (["rosse"], 3, NAMES, "name or number of a class, got 'rosse'. Fix: write 'rose'"),
        (["tree"], 3, NAMES, "got 'tree'. Fix: choose one of daisy, rose, sun flower"),
        ([3], 3, NAMES, "classes from 0 to 2, got 3"),
        ([-1], 3, [], "classes from 0 to 2, got -1"),
        (["rose"], 3, [], "whole numbers from 0 to 2, got 'rose'"),
        (["rose"], None, [], "trained without labels"),
    ],
)
def test_other_words_are_refused_in_one_line(asked, count, names, message):
    with pytest.raises(ValueError, match=message) as caught:
        chosen_classes(asked, count, names)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    for i in range(6):
        path = folder / "data" / NAMES[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * i).save(path)
    model = GaussianDiffusion(tiny_unet(num_classes=3), timesteps=2)
    data = ImageFolder(folder / "data", 8, 1, labels=True)
    options = {"train_batch_size": 4, "train_num_steps": 1, "num_samples": 3, **QUIET}
    Trainer(model, data, results_folder=folder / "run", **options).train()
    return folder / "run"


def test_a_labelled_folder_stores_its_names_and_sampling_takes_them(
    run, tmp_path, monkeypatch, capsys
):
    assert Checkpoint.find(run).class_names == NAMES
    seen, original = [], GaussianDiffusion.sample

    def record(self, *words, **options):
        seen.append(options)
        return original(self, *words, **options)

    monkeypatch.setattr(GaussianDiffusion, "sample", record)
    words = [str(run), "--num_samples=3", "--progress=false", "--noise_device=cpu"]
    commands.sample([*words, "--labels=rose,0", f"--output={tmp_path / 'a'}"])
    assert seen[0]["labels"].tolist() == [1, 0, 1]
    assert seen[0]["noise_device"] == torch.device("cpu")
    assert capsys.readouterr().out.strip().endswith("columns: rose, daisy")
    with pytest.raises(SystemExit):
        commands.sample([*words, "--labels=dasy", f"--output={tmp_path / 'b'}"])
    assert "got 'dasy'. Fix: write 'daisy'" in capsys.readouterr().err


def test_an_export_keeps_the_names(run, tmp_path):
    GaussianDiffusion.from_pretrained(run).save_pretrained(tmp_path / "export")
    again = GaussianDiffusion.from_pretrained(tmp_path / "export")
    again.save_pretrained(tmp_path / "second")
    assert Checkpoint.find(tmp_path / "second").class_names == again.class_names == NAMES
    words = [str(tmp_path / "second"), "--num_samples=1", "--labels=rose", "--progress=false"]
    commands.sample([*words, "--steps=1", f"--output={tmp_path / 'out'}"])


@pytest.mark.parametrize(
    ("kept", "opened"), [("ema", "ema"), ("model", "model"), ("model optimizer", "model")]
)
def test_weights_without_the_rest_of_a_checkpoint_open_for_sampling(run, tmp_path, kept, opened):
    """Without the optimizer and the training state, a checkpoint takes a quarter of the space."""
    checkpoint = shutil.copytree(Checkpoint.find(run).path, tmp_path / "run/checkpoints/step-1")
    for file in checkpoint.glob("*.safetensors"):
        if file.stem not in kept.split():
            file.unlink()
    (checkpoint / "state.json").unlink()
    for folder in (tmp_path / "run", checkpoint):
        words = [str(folder), "--num_samples=1", "--progress=false", "--steps=1"]
        commands.sample(
            [*words, f"--weights={opened}", "--overwrite", f"--output={tmp_path / 'out'}"]
        )
        other = {"ema": "model", "model": "ema"}[opened]
        with pytest.raises(ValueError, match=rf"weights among .*, got '{other}'\. Fix: choose"):
            GaussianDiffusion.from_pretrained(folder, weights=other)
    assert not GaussianDiffusion.from_pretrained(checkpoint, weights=opened).class_names
    with pytest.raises(DamagedCheckpoint, match="is missing or truncated"):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize(
    ("space", "largest"), [(ImageSpace((270, 310), None), 255), (ImageSpace((0, 9), 4096), 65535)]
)
def test_pictures_of_another_range_are_shown_on_their_own_scale(
    tmp_path, space, largest, monkeypatch
):
    """Without this, 310 would become 255 * 310 modulo 256."""
    low, high = space.value_range
    model = GaussianDiffusion(Plain(), timesteps=1, space=space)
    model.save_pretrained(tmp_path / "model")
    ramp = torch.linspace(low, high, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    monkeypatch.setattr(GaussianDiffusion, "sample", lambda self, count, **options: ramp)
    words = [str(tmp_path / "model"), "--num_samples=1", "--progress=false", "--trust=toys"]
    commands.sample([*words, f"--output={tmp_path / 'out'}"])
    pixels = np.asarray(Image.open(tmp_path / "out" / "00000.png")).ravel()
    expected = np.round(np.arange(16) / 15 * largest)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    values = np.load(tmp_path / "out" / "00000.npy")
    assert np.array_equal(values, ramp[0].float().numpy()), "in their own units"


@pytest.mark.parametrize("channels", [1, 5])
def test_samples_that_pictures_cannot_show_are_written_as_values(tmp_path, channels, monkeypatch):
    many = torch.rand(2, channels, 4, 4)
    model = GaussianDiffusion(Plain(channels), timesteps=1)
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(GaussianDiffusion, "sample", lambda self, count, **options: many)
    words = [str(tmp_path / "model"), "--num_samples=2", "--progress=false", "--trust=toys"]
    commands.sample([*words, f"--output={tmp_path / 'out'}"])
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    pictures = ["00000.png", "00001.png", "grid.png", "index.csv"]
    assert found == sorted(pictures + (["00000.npy", "00001.npy"] if channels == 5 else []))
    if channels == 5:
        assert np.array_equal(np.load(tmp_path / "out" / "00001.npy"), many[1].numpy())


def test_sequences_are_written_as_values(tmp_path):
    samples = [(torch.rand(6, 2), None) for _ in range(3)]
    outputs = Outputs(tmp_path / "out")
    told = _write([samples[:2], samples[2:]], outputs, 0, 256)
    assert told == f"3 samples, {tmp_path / 'out' / '00000.npy'} to 00002.npy"
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        *(f"0000{i}.npy" for i in range(3)),
        "index.csv",
    ]
