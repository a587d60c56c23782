"""Objects print themselves on one readable line; a call of a wrong shape fails in a short one."""

import re
import traceback

import pytest
import torch
from toys import Plain, tiny_diffusion, tiny_dit, tiny_rin, tiny_unet

from diffusion_framework import GaussianDiffusion, Images, Labels, Trainer, Unbounded
from diffusion_framework.editing import interpolate, invert
from diffusion_framework.evaluation import bits_per_dim
from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.training import Previews

DIFFUSION = tiny_diffusion()
OBJECTS = {
    r"GaussianDiffusion\(model=UNet\(dim=8, .* parameters\), timesteps=4\)": DIFFUSION,
    r"UNet\(dim=8, .*, image_size=8, .* parameters\)": tiny_unet(),
    r"DiT\(.*num_classes=3, 2.97k parameters\)": tiny_dit(num_classes=3),
    r"RIN\(.* parameters\)": tiny_rin(),
    r"Plain\(channels=2, 6 parameters\)": Plain(channels=2),
    r"Unbounded\(mean=0.5, std=2.0\)": Unbounded(mean=0.5, std=2.0),
    r"Labels\(classes=3, dropout=0.1\)": Labels(3, dropout=0.1),
    r"Images\(.*\)": Images(1),
    r"Walk\(Auto\(.*\), Grid\(3 steps: log_snr -20.* to .*\), start=\[2, 1, 8, 8\]\)": (
        DIFFUSION.walk(2, steps=3)
    ),
    r"Grid\(0 steps\)": DIFFUSION.grid(3)[:0],
    r"Trainer\(model=GaussianDiffusion.*, folder_or_dataset=.*, previews=Previews\(every=0\)\)": (
        Trainer(DIFFUSION, torch.rand(16, 1, 8, 8), previews=Previews(every=0))
    ),
}


@pytest.mark.parametrize("line", OBJECTS)
def test_an_object_is_one_line_of_key_facts(line):
    text = repr(OBJECTS[line])
    assert re.fullmatch(line, text) and len(text) < 400, text


def test_a_checkpoint_is_its_place_and_step(tmp_path):
    DIFFUSION.save_pretrained(tmp_path / "model")
    assert re.fullmatch(r"Checkpoint\(path=\S*Path\('.*/model'\), step=0\)",
                        repr(Checkpoint.find(tmp_path / "model")))  # fmt: skip


def test_long_arguments_are_cut():
    model = GaussianDiffusion(Plain(9), space=Unbounded(mean=[0.1] * 9, std=[1.0] * 9))
    assert len(repr(model)) < 300 and "\n" not in repr(model)
    images = [torch.rand(9, 4, 4)] * 99
    trainer = Trainer(model, images)
    assert "\n" not in repr(trainer) and len(repr(trainer)) < 500


X = torch.rand(2, 1, 8, 8)
CLASSES = GaussianDiffusion(tiny_unet(num_classes=3), timesteps=4)
QUIET = {"steps": 2, "show_progress": False}
CALLS = {  # the argument or what it holds, the wanted shape, the shape that it has
    "loss, dimensions": (lambda: DIFFUSION(X[:, 0]), "samples", "[batch, 1, 8, 8]", "[2, 8, 8]"),
    "loss, size": (lambda: DIFFUSION(X[..., :4]), "samples", "[batch, 1, 8, 8]", "[2, 1, 8, 4]"),
    "loss, an array": (lambda: DIFFUSION(X.numpy()), "data", "'batch", "array of float32 [2, 1, "),
    "loss, mask": (lambda: DIFFUSION(X, mask=X[:1] > 0), "mask", "batch *counted", "bool [1, 1, "),
    "loss, labels": (lambda: CLASSES(X, labels=torch.arange(3)), "labels", "2 samples", "got 3"),
    "sample, labels": (
        lambda: CLASSES.sample(2, labels=torch.arange(3), **QUIET), "labels", "2 samples", "got 3",
    ),
    "sample, noise": (
        lambda: DIFFUSION.sample(2, noise=X[..., :4], **QUIET), "noise", "[2, 1, 8, 8]", "8, 4]",
    ),
    "sample, start": (
        lambda: DIFFUSION.sample(3, start=X, **QUIET), "start", "[3, ...]", "[2, 1, 8, 8]",
    ),
    "validation": (
        lambda: DIFFUSION.validation_metrics(X[..., 1:]), "samples", "1, 8, 8]", "[2, 1, 8, 7]",
    ),
    "likelihood": (lambda: bits_per_dim(DIFFUSION, X[0]), "samples", "1, 8, 8]", "[1, 8, 8]"),
    "inversion": (lambda: invert(DIFFUSION, X[..., 1:]), "samples", "1, 8, 8]", "[2, 1, 8, 7]"),
    "interpolation": (
        lambda: interpolate(DIFFUSION, X, X[:1]), "second", "[2, 1, 8, 8]", "[1, 1, 8, 8]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_shape_is_named_in_a_short_traceback(call):
    door, argument, wanted, got = CALLS[call]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        door()
    text = str(caught.value)
    places = [text.index(argument), text.index(wanted), text.rindex(got)]
    assert "\n" not in text and places == sorted(places), text
    assert "Fix: " in text
    frames = traceback.extract_tb(caught.value.__traceback__)
    shown = traceback.format_exception(caught.value)
    assert not any("jaxtyping" in f.filename or "beartype" in f.filename for f in frames), shown
    assert len([f for f in frames if "diffusion_framework/" in f.filename]) <= 6, shown
    assert len(shown) < 16, "no other error is shown before it"
