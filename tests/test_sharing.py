"""The commands export, info and runs: what a run is worth, without building it."""

import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import stat
from pathlib import Path

import pytest
import torch
from commands import export, info, runs
from runs import reseal, rewrite, stop_after, trainer
from toys import Plain

from diffusion_framework import DiffusionPolicy, GaussianDiffusion, ImageFolder, Trainer
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.training.run_lock import RunLock


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A folder with a finished run on a folder of images, and a run that was stopped."""
    from PIL import Image

    top = tmp_path_factory.mktemp("shared")
    (top / "pictures").mkdir()
    for index in range(6):
        Image.new("L", (8, 8), 30 * index).save(top / "pictures" / f"{index}.png")
    data = ImageFolder(top / "pictures", 8, 1)
    options = {"train_num_steps": 2, "save_and_sample_every": 1}
    trainer(data, top / "runs" / "a" / "done", validation=data, **options).train()
    short = trainer(data, top / "runs" / "cut", **options)
    stop_after(short, 1)
    short.train()
    return top


@pytest.fixture
def run(top, tmp_path):
    return Path(shutil.copytree(top / "runs" / "a" / "done", tmp_path / "run"))


def printed(command, *words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command([str(word) for word in words])
    return out.getvalue()


def refused(capsys, command, *words):
    with pytest.raises(SystemExit) as end:
        command([str(word) for word in words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and "Fix: " in error, error
    return error


def test_an_export_is_the_averaged_model_and_can_be_shared(run, top, tmp_path):
    old = os.umask(0o022)
    try:
        said = printed(export, run, tmp_path / "new" / "model")
    finally:
        os.umask(old)
    assert "GaussianDiffusion.from_pretrained(" in said and said.count("\n") == 1
    folder = tmp_path / "new" / "model"
    opened, trained = (GaussianDiffusion.from_pretrained(one) for one in (folder, run))
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in opened.state_dict().items())
    images = [one.sample(2, steps=2, seed=0, show_progress=False) for one in (opened, trained)]
    assert torch.equal(*images)
    assert {file.name for file in folder.iterdir()} == {
        "ema.safetensors", "config.yaml", "state.json", "manifest.json",
    }  # fmt: skip
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert str(top).encode() not in file.read_bytes() and b"{run}" not in file.read_bytes()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    Checkpoint.find(folder).verify()
    printed(export, run, tmp_path / "last", "--weights", "model")
    last = GaussianDiffusion.from_pretrained(run, weights="model")
    again = GaussianDiffusion.from_pretrained(tmp_path / "last")
    assert all(torch.equal(v, last.state_dict()[k]) for k, v in again.state_dict().items())


def test_the_network_of_a_user_is_exported_without_its_code(tmp_path):
    model = GaussianDiffusion(Plain(image_size=8))
    options = {"train_num_steps": 1, "train_batch_size": 4, "results_folder": tmp_path / "run"}
    Trainer(model, torch.rand(8, 1, 8, 8), **options).train()
    printed(export, tmp_path / "run", tmp_path / "model")
    GaussianDiffusion.from_pretrained(tmp_path / "model", model=Plain(image_size=8))
    GaussianDiffusion.from_pretrained(tmp_path / "model", trust=["toys"])


def test_a_policy_is_exported_too(tmp_path):
    from diffusion_framework.models import ResidualMLP

    network = ResidualMLP(horizon=16, dim=8)
    DiffusionPolicy(network).save_pretrained(tmp_path / "first")
    printed(export, tmp_path / "first", tmp_path / "second")
    opened = DiffusionPolicy.from_pretrained(tmp_path / "second")
    assert "DiffusionPolicy" in printed(info, tmp_path / "second") and opened.networks


def test_a_refused_export_creates_nothing(run, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert "expected a new folder" in refused(capsys, export, run, run)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "expected a new folder" in refused(capsys, export, run, tmp_path / "link")
    (tmp_path / "link").unlink()
    refused(capsys, export, tmp_path / "none", tmp_path / "a" / "b")
    refused(capsys, export, run, tmp_path / "a" / "b", "--weights", "best")
    newest = list_checkpoints(run)[-1]
    config = Checkpoint.find(run).config
    config["diffusion"]["init_args"]["space"] = {"init_args": {"weights": "/home/me/w"}}
    rewrite(newest, "config.yaml", json.dumps(config).encode())
    error = refused(capsys, export, run, tmp_path / "a" / "b")
    assert "needs no file of this machine, got /home/me/w as diffusion.init_args.space" in error
    (newest / "ema.safetensors").write_bytes(b"0" * (newest / "ema.safetensors").stat().st_size)
    refused(capsys, export, run, tmp_path / "a" / "b")
    assert sorted(tmp_path.rglob("*")) == before


def test_info_fits_a_screen_and_tells_what_the_run_was(run, top, tmp_path):
    text = printed(info, run)
    lines = text.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 100
    count = sum(p.numel() for p in GaussianDiffusion.from_pretrained(run).parameters())
    for word in (
        f"{count:,}", "UNet(dim=8", "sigmoid", "2 of 2", "6 samples", "4 samples a step",
        "last loss", "best validation_loss", "torch", "diffusion_framework",
    ):  # fmt: skip
        assert word in text, word
    told = json.loads(printed(info, top / "runs" / "a" / "done", "--json"))
    assert told["steps"] == 2 and told["data"].endswith(str(top / "pictures"))
    assert told["size"] == sum(file["size"] for file in Checkpoint.find(run).files.values())
    earlier = json.loads(printed(info, list_checkpoints(run)[0], "--json"))
    assert earlier["steps"] == 1 and earlier["num_steps"] == 2
    printed(export, run, tmp_path / "model")
    shared = json.loads(printed(info, tmp_path / "model", "--json"))
    for key in ("steps", "parameters", "network", "parts", "versions"):
        assert shared[key] == told[key], key
    assert shared["kind"] == "export" and shared["weights"] == ["ema"] and shared["data"] is None
    assert shared["figures"].keys() == told["figures"].keys()


def test_runs_are_a_table_with_broken_ones_in_it(top, tmp_path, capsys):
    shutil.copytree(top / "runs", tmp_path / "runs")
    for name, hurt in (("no_manifest", "manifest.json"), ("no_config", "config.yaml")):
        shutil.copytree(top / "runs" / "cut", tmp_path / "runs" / name)
        (list_checkpoints(tmp_path / "runs" / name)[-1] / hurt).unlink()
    (tmp_path / "runs" / "begun" / "checkpoints").mkdir(parents=True)
    lines = printed(runs, tmp_path / "runs").splitlines()
    table = {line.split()[0]: line for line in lines[1:]}
    assert [*table] == ["a/done", "begun", "cut", "no_config", "no_manifest"]
    assert lines[0].split()[:5] == ["run", "status", "steps", "loss", "validation_loss"]
    assert "finished" in table["a/done"] and "2 of 2" in table["a/done"]
    assert "stopped" in table["cut"] and "1 of 2" in table["cut"]
    for name in ("begun", "no_config", "no_manifest"):
        assert "broken" in table[name] and "expected" in table[name]
    told = json.loads(printed(runs, tmp_path / "runs", "--sort", "steps", "--json"))
    assert [row["steps"] for row in told] == [0, 0, 0, 1, 2]
    error = refused(capsys, runs, tmp_path / "runs", "--sort", "validation_los")
    assert "Fix: write 'validation_loss'" in error
    assert "got none" in refused(capsys, runs, top / "pictures")
    refused(capsys, runs, tmp_path / "nowhere")


def _hold(folder, ready, over):
    lock = RunLock(Path(folder))
    ready.set()
    over.wait(60)
    lock.release()


def test_a_run_in_use_is_running(run):
    context = multiprocessing.get_context("fork")
    ready, over = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(run, ready, over))
    process.start()
    try:
        assert ready.wait(60)
        assert " running " in printed(runs, run.parent)
    finally:
        over.set()
        process.join()
    assert " finished " in printed(runs, run.parent)


HOSTILE = {
    "a deep model": lambda c: c.update(diffusion=json.loads('{"init_args":' * 30 + "3" + "}" * 30)),
    "control characters": lambda c: c["diffusion"]["init_args"].update(
        objective="\x1b[2J\x07\u202e" + "x" * 10_000
    ),
    "a class that runs": lambda c: c["diffusion"].update(
        class_path="os.system", init_args={"command": "touch executed"}
    ),
    "other kinds": lambda c: c.update(trainer=[], data=3, diffusion={"init_args": [1]}),
    "odd options": lambda c: c["trainer"].update(train_num_steps="many"),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_checkpoint_is_described_or_refused(run, change, monkeypatch, capsys):
    monkeypatch.chdir(run.parent)
    newest = list_checkpoints(run)[-1]
    config = Checkpoint.find(run).config
    HOSTILE[change](config)
    rewrite(newest, "config.yaml", json.dumps(config).encode())
    for command, words in ((info, [run]), (info, [run, "--json"]), (runs, [run.parent])):
        try:
            text = printed(command, *words)
        except SystemExit:
            text = capsys.readouterr().err
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert len(text) < 5000 and "Traceback" not in text
    assert not (run.parent / "executed").exists()


@pytest.mark.parametrize("name", ["log.csv", "validation.csv"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff\n" * 9, b"step,loss\n" + b"x" * 300_000, b"step,loss\n1,inf\n2\n,\n"],
    ids=["empty", "bytes", "a long row", "no numbers"],
)
def test_a_damaged_table_has_no_figures(run, name, content):
    (run / name).write_bytes(content)
    json.loads(printed(runs, run.parent, "--json"))
    told = json.loads(printed(info, run, "--json"))
    assert not {"log.csv": {"loss"}, "validation.csv": {"validation_loss"}}[name] & {
        *told["figures"]
    }


def test_a_pipe_or_a_foreign_state_does_not_hang_or_fail(run):
    (run / "log.csv").unlink()
    os.mkfifo(run / "log.csv")
    newest = list_checkpoints(run)[-1]
    state = {"about": 3, "order": [], "samples": "x", "environment": {"torch": [1] * 99}}
    rewrite(newest, "state.json", json.dumps({**state, "class_names": [{}] * 99}).encode())
    text = printed(info, run)
    assert "99 classes" in text and len(text) < 5000
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["files"]["ema.safetensors"]["size"] = 8
    (newest / "ema.safetensors").write_bytes(b"\xff" * 8)
    reseal(newest / "manifest.json", manifest)
    with pytest.raises(SystemExit):
        printed(info, run)
    assert "broken" in printed(runs, run.parent)


def test_the_figures_are_the_last_loss_and_the_best_of_each_metric(run):
    (run / "log.csv").write_text("step,loss,x\n1,5,0\n2,4,0\n3,9,0\n")
    (run / "validation.csv").write_text("step,validation_loss,frechet\n1,0.5,\n2,0.7,12\n9,0,0\n")
    told = json.loads(printed(info, run, "--json"))["figures"]
    assert told == {"loss": 4, "validation_loss": 0.5, "frechet": 12}, "up to step 2"
    assert re.search(r"frechet", printed(runs, run.parent).splitlines()[0])
