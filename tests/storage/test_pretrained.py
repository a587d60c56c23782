"""The model that comes with the package: small, sealed, and drawing what it is asked for."""

import pytest
import torch
from PIL import Image
from runs import trainer
from toys import tiny_diffusion

from diffusion_framework import GaussianDiffusion
from diffusion_framework.cli.program import run_command
from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.storage.exporting import export_run
from diffusion_framework.storage.pretrained import named_folder, pretrained_models


@pytest.mark.parametrize("name", pretrained_models())
def test_a_packaged_model_is_small_and_whole(name):
    checkpoint = Checkpoint.find(name)
    checkpoint.verify()
    files = [path for path in checkpoint.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4e6


def test_the_packaged_model_knows_its_classes_and_tells_them_apart():
    model = GaussianDiffusion.from_pretrained("drawings")
    assert len(model.class_names) == model.num_classes == 9
    assert all(p.dtype == torch.float32 for p in model.parameters())
    flags = [*model.class_names].index("Flags")
    drawn = model.sample(4, calls=5, seed=0, labels=torch.tensor([flags, 0, flags, 0]))
    assert drawn.shape == (4, 3, 32, 32)
    again = model.sample(4, calls=5, seed=0, labels=torch.tensor([0, 0, 0, 0]))
    changed = (drawn - again).abs().mean((1, 2, 3))
    assert (changed[[0, 2]] > 0.02).all()
    assert (changed[[1, 3]] < 1e-5).all()


def test_sampling_without_a_run_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_command("sample", ["--num_samples=2", "--calls=2", "--progress=false"])
    assert capsys.readouterr().out.startswith("done: 2 images")
    with Image.open(tmp_path / "samples" / "00001.png") as image:
        assert image.size == (32, 32)


def test_a_folder_of_the_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named_folder("drawings").is_absolute()
    (tmp_path / "drawings").mkdir()
    assert not named_folder("drawings").is_absolute()


def test_half_precision_is_half_the_size_and_rounds_to_nearest(ten_images, tmp_path):
    run = trainer(ten_images, tmp_path / "run", train_num_steps=2)
    run.train()
    whole = export_run(tmp_path / "run", tmp_path / "whole")
    half = export_run(tmp_path / "run", tmp_path / "half", half=True)
    assert half.size < 0.75 * whole.size, "names and texts are as long as before"
    stored = Checkpoint.find(tmp_path / "half").tensors("ema")
    for name, value in Checkpoint.find(tmp_path / "whole").tensors("ema").items():
        rounded = value.half() if value.is_floating_point() else value
        assert torch.equal(stored[name], rounded)
    opened = GaussianDiffusion.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in opened.parameters()} == {
        p.dtype for p in tiny_diffusion().parameters()
    }


def test_weights_too_large_for_half_precision_are_refused(tmp_path):
    model = tiny_diffusion()
    with torch.no_grad():
        next(model.parameters()).fill_(1e6)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="Expected weights of at most 65504 .* Fix: "):
        export_run(tmp_path / "model", tmp_path / "half", half=True)
    assert not (tmp_path / "half").exists()
