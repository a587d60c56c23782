"""What a run says at its start and its end, and what a dry run finds out."""

import re

import pytest
import torch
from grey_images import save
from runs import trainer

from diffusion_framework.data import ImageFolder
from diffusion_framework.parts.counting import counted
from diffusion_framework.training import EMA, Logging, log
from diffusion_framework.training.rehearsal import rehearsed
from diffusion_framework.training.starting import Start
from diffusion_framework.training.summary import Outline, ending, summary


@pytest.fixture
def flowers(tmp_path):
    """A folder of six images in two subfolders, with a file that is not an image."""
    for i in range(6):
        save(tmp_path / "flowers" / ("daisy", "rose")[i % 2] / f"{i}.png", 40 * i)
    (tmp_path / "flowers" / "notes.txt").write_text("")
    return tmp_path / "flowers"


def test_the_summary_says_what_the_run_will_do(flowers, tmp_path):
    run = trainer(flowers, tmp_path / "run", gradient_accumulate_every=3, seed=7)
    rows = dict(line.split(maxsplit=1) for line in run.summary().splitlines() if line[0] != " ")
    assert rows["data"] == f"6 images, 8 x 8 grey, in {flowers}"
    assert "left out: 1 non-image file" in run.summary()
    assert "--data.labels true --diffusion.model.num_classes 2 makes them classes" in run.summary()
    parameters = sum(p.numel() for p in run.model.parameters())
    assert rows["network"] == f"UNet, {parameters:,} parameters"
    assert rows["training"] == "6 steps of 12 samples (4 x 3 accumulated), 12 epochs, seed 7"
    assert str(tmp_path / "run") in rows["results"] and "resumed" not in rows
    assert len(run.summary().splitlines()) <= 12


def test_classes_are_named_and_a_resumed_run_says_its_step(flowers, tmp_path):
    assert "2 classes (daisy, rose)" in ImageFolder(flowers, 8, 1, labels=True).describe()
    run = trainer(flowers, tmp_path / "run", train_num_steps=3)
    run.train()
    again, seen = trainer(flowers, tmp_path / "run"), []
    rehearsal = Outline.of(again, again.check(Start(True)).step)
    assert "resumed     from step 3" in summary(rehearsal)
    again.announce = lambda: seen.append(again.summary())
    again.train(resume=True)
    assert "resumed     from step 3" in seen[0]


def test_the_end_names_figures_pictures_and_the_command(flowers, tmp_path):
    results = tmp_path / "my run"
    run = trainer(flowers, results, validation=ImageFolder(flowers, 8, 1))
    run.train()
    text = ending(Outline.of(run))
    picture, curves = re.search(r"pictures +(.*), (.*)", text).groups()
    assert picture == str(results / "samples" / "step-00000006.png") and curves.endswith("n.png")
    assert all((results / name).exists() for name in ("samples", "validation.png"))
    assert re.search(r"done +step 6, loss [\d.e-]+, best validation_loss [\d.e-]+", text)
    assert f"diffusion sample '{results}'" in text, "quoted for a shell"
    (results / "log.csv").write_bytes(b"step,loss\n6,\xff")
    (results / "validation.csv").unlink()
    assert re.search(r"done +step 6\n", ending(Outline.of(run))), "damaged tables have no figures"


def test_a_dry_run_measures_a_step_and_writes_nothing(flowers, tmp_path):
    run = trainer(flowers, tmp_path / "run", ema=EMA(profiles=(0.05, 0.1)))
    before = [p.clone() for p in run.model.parameters()]
    text = rehearsed(run)
    weights = sum(p.nbytes for p in before)
    assert f"EMA {3 * weights / 1000:.3g} kB" in text, "with an average for each profile"
    assert f"weights {weights / 1000:.3g} kB" in text and f"optimizer {weights / 500:.3g}" in text
    assert float(re.search(r"a step +(\S+) floating", text)[1]) > 1e5
    assert not (tmp_path / "run").exists()
    assert all(map(torch.equal, before, run.model.parameters()))
    assert all(p.grad is None for p in run.model.parameters())


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({}, 2),
        ({"optimizer": "SGD"}, 0),
        ({"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}}, 1),
    ],
)
def test_the_memory_is_that_of_the_chosen_optimizer(flowers, tmp_path, options, slots):
    """A dry run counts what the first step of the optimizer leaves, and takes none of its own."""
    run = trainer(flowers, tmp_path / "run", **options)
    told = re.search("optimizer (.*?),", rehearsed(run))[1]
    assert not run.state.slots.optimizer.state
    run.train()
    size = sum(value.nbytes for value in run.state.slots.tensors().values())
    weights = sum(p.nbytes for p in run.model.parameters())
    assert told == (f"{size / 1000:.3g} kB" if size else "0 B")
    assert size == pytest.approx(slots * weights, rel=0.02)


def test_a_run_tells_once_how_long_its_steps_will_take(flowers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(log, "_FIRST_WORD", 0.0)
    trainer(flowers, tmp_path / "short", logging=Logging(every=1)).train()
    assert capsys.readouterr().out == "", "where little is left, there is nothing to tell"
    monkeypatch.setattr(log, "_WORTH_TELLING", 0.0)
    trainer(flowers, tmp_path / "run", logging=Logging(every=1)).train()
    told = capsys.readouterr()
    times = re.findall(r"(?m)^time +about 0:0\d:\d\d for the steps, \S+ s each$", told.out)
    assert len(times) == told.out.count("\ntime ") + told.out.startswith("time ") == 1
    assert told.err.count("step 6 of 6") == 1
    trainer(flowers, tmp_path / "quiet").train()
    assert capsys.readouterr().out == ""


def test_a_number_agrees_with_its_noun():
    told = [counted(0, "file"), counted(1, "class"), counted(2, "class"), counted(1200, "batch")]
    assert told == ["0 files", "1 class", "2 classes", "1,200 batches"]


def test_the_summary_is_the_function_of_an_outline(flowers, tmp_path):
    run = trainer(flowers, tmp_path / "run")
    assert summary(Outline.of(run)) == run.summary()
