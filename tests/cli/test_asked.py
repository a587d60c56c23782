"""Conditions on the command line of `diffusion sample` and `diffusion evaluate`."""

import re

import numpy as np
import pytest
import torch
from commands import evaluate, sample
from PIL import Image
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion, ImageFolder
from diffusion_framework.evaluation.quality import draw_images
from diffusion_framework.evaluation.quality.conditions import conditions_of

ALL = {"num_classes": 3, "image_channels": 1, "vector_dim": 2, "token_dim": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditions") / "run"
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(tiny_unet(**ALL), timesteps=4)
    data = {"labels": [0, 1], "text": ["a", "b"], "vector": torch.eye(2)}
    diffusion.fit([(torch.rand(2, 1, 8, 8), data | {"image": torch.rand(2, 1, 8, 8)})])
    for parameter in diffusion.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    diffusion.class_names = ["cat", "dog", "owl"]
    diffusion.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def seen(monkeypatch):
    """Collects the conditions that the command samples with."""
    found, original = [], GaussianDiffusion.sample

    def recorded(self, *args, **options):
        found.append({name: options[name] for name in self.conditions if name in options})
        return original(self, *args, **options)

    monkeypatch.setattr(GaussianDiffusion, "sample", recorded)
    return found


def call(run, folder, *words):
    sample([run, *words, "--steps=1", f"--output={folder}", "--device=cpu", "--progress=false"])


def test_texts_are_rows_and_other_conditions_stay_none(run, seen, tmp_path, capsys):
    words = ["--text", "a red, red heart", "--text=a dog", "--num_samples=5", "--batch_size=4"]
    call(run, tmp_path / "samples", *words)
    heart, dog = "a red, red heart", "a dog"
    assert seen == [{"text": [heart, heart, heart, dog]}, {"text": [dog]}]
    assert "rows: a red, red heart; a dog" in capsys.readouterr().out
    size, line = 96, 14  # of the enlarged images, and of the text below
    expected = 3 * (size + 2) + 2, 2 * (size + line + 2) + 2
    assert Image.open(tmp_path / "samples" / "grid.png").size == expected


def test_all_conditions_together_and_texts_of_a_file(run, seen, tmp_path):
    (tmp_path / "texts.txt").write_text("one\n\ntwo, three\n")
    pixels = np.arange(2 * 16 * 16, dtype=np.uint8).reshape(2, 16, 16)
    (tmp_path / "images").mkdir()
    for i in range(2):
        Image.fromarray(pixels[i]).save(tmp_path / "images" / f"{i}.png")
    words = [f"--text={tmp_path / 'texts.txt'}", f"--image={tmp_path / 'images'}"]
    words += ["--vector=0.5,-2", "--labels=dog,0", "--num_samples=4", "--guidance=2"]
    call(run, tmp_path / "samples", *words)
    (told,) = seen
    assert told["text"] == ["one", "one", "two, three", "two, three"]
    assert told["labels"].tolist() == [1, 0, 1, 0]
    assert told["vector"].tolist() == [[0.5, -2.0]] * 4
    assert np.array_equal(told["image"].numpy()[:, 0], pixels[[0, 1, 0, 1]])


def test_without_a_condition_all_classes_are_drawn(run, seen, tmp_path, capsys):
    call(run, tmp_path / "samples", "--num_samples=3")
    assert [{k: v.tolist() for k, v in told.items()} for told in seen] == [{"labels": [0, 1, 2]}]
    assert "columns: cat, dog, owl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text=a", "--text=b", "--num_samples=1"], "one for each of 2 texts, got 1. Fix: "),
        (["--text=nothing.txt"], "--text: expected an existing file, got nothing.txt"),
        (["--text", ""], "--text: expected a value, got an empty word"),
        (["--image=nowhere.png"], "--image: expected an image or a folder of them"),
        (["--vector=1,2,3"], r"Expected vector \[batch, 2\], got \[25, 3\]"),
        (["--labels=cow"], "--labels: expected the name or number of a class, got 'cow'"),
    ],
)
def test_bad_conditions_are_one_line(run, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        call(run, tmp_path / "samples", *words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert re.search(message, error), error
    assert not (tmp_path / "samples").exists()


def test_a_condition_that_the_run_does_not_have_is_refused(tmp_path, capsys):
    GaussianDiffusion(tiny_unet(), timesteps=4).save_pretrained(tmp_path / "run")
    with pytest.raises(SystemExit):
        call(str(tmp_path / "run"), tmp_path / "samples", "--text=a heart")
    error = capsys.readouterr().err
    assert "--text: expected a condition of this run (none), got --text. Fix: leave it out" in error


@pytest.fixture
def captioned(tmp_path):
    """A folder of six images with captions, and a run that was trained on such."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"number {i}")
    GaussianDiffusion(tiny_unet(token_dim=8), timesteps=4).save_pretrained(tmp_path / "run")
    return folder


def test_samples_to_measure_have_the_conditions_of_held_out_images(captioned):
    data = ImageFolder(captioned, 8, 1, captions=True)
    told = conditions_of(data, 3, ["text", "labels"])
    assert told == {"text": ["number 0", "number 2", "number 4"]}
    assert len(conditions_of(data, 8, ["text"])["text"]) == 8
    model = GaussianDiffusion(tiny_unet(token_dim=8), timesteps=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    options = {"seed": 0, "show_progress": False, "steps": 1}
    drawn = draw_images(model, 3, batch_size=2, conditions=told, **options)
    whole = draw_images(model, 3, batch_size=3, conditions=told, **options)
    assert (drawn.int() - whole.int()).abs().max() <= 1
    assert not torch.equal(drawn, draw_images(model, 3, batch_size=2, **options))


def test_likelihoods_need_the_conditions_of_the_model(captioned, tmp_path, capsys):
    words = [str(tmp_path / "run"), "--likelihood", f"--data.folder={captioned}", "--steps=2"]
    words += ["--tolerance=0.1", "--device=cpu", "--progress=false"]
    with pytest.raises(SystemExit):
        evaluate([*words, f"--output={tmp_path / 'no'}"])
    assert "images with text, as the model has this condition, got none" in capsys.readouterr().err
    evaluate([*words, "--data.captions=true", f"--output={tmp_path / 'yes'}"])
    assert "bits" in capsys.readouterr().out
