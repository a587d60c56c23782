"""A time in minutes becomes a number of steps once, and the run is one of that many steps."""

import json
import re

import pytest
import soak
import torch
from runs import assert_same_run, rewrite, stop_after, trainer

from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.storage.description import Description
from diffusion_framework.training import EMA, LearningRate, budget

OPTIONS = {"learning_rate": LearningRate("cosine", warmup_steps=2), "train_lr": 1e-2}


@pytest.fixture
def measured(monkeypatch):
    """A step that takes 63 s, so that nine fit into ten minutes; lists the measurements."""
    calls = []

    def seconds(step, *_):
        step()
        calls.append(1)
        return 63.0

    monkeypatch.setattr(budget, "_seconds", seconds)
    return calls


def snapshots(checkpoint):
    return (checkpoint.state["profiles"] or {}).get("snapshots")


@pytest.mark.parametrize(
    "more",
    [
        {"ema": EMA(profiles=(0.05, 0.1), snapshots=3)},
        {"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}},
    ],
    ids=["profiles", "SGD"],
)
def test_a_run_of_minutes_equals_one_of_its_steps(ten_images, tmp_path, measured, more):
    options = {**OPTIONS, **more}
    run = trainer(ten_images, tmp_path / "minutes", minutes=10, **options)
    assert "as many steps of 4 samples as take 10 minutes" in run.summary()
    run.train()
    assert "9 steps of 4 samples in 10 minutes" in run.summary()
    assert Checkpoint.find(tmp_path / "minutes").step == 9
    trainer(ten_images, tmp_path / "steps", train_num_steps=9, **options).train()
    assert_same_run(tmp_path / "minutes", tmp_path / "steps")
    one, other = (Checkpoint.find(tmp_path / name) for name in ("minutes", "steps"))
    assert Description.of(one).num_steps == 9
    assert one.kinds() == other.kinds()
    for kind in one.kinds():  # the averages of other widths are among them
        assert all(torch.equal(v, other.tensors(kind)[k]) for k, v in one.tensors(kind).items())
    assert snapshots(one) == snapshots(other)


def test_a_time_is_measured_once_and_its_run_resumes_exactly(ten_images, tmp_path, measured):
    trainer(ten_images, tmp_path / "whole", minutes=10, **OPTIONS).train()
    for stop in (3, 6):
        cut = trainer(ten_images, tmp_path / "cut", minutes=10, **OPTIONS)
        stop_after(cut, stop)
        cut.train(resume="auto")
    trainer(ten_images, tmp_path / "cut", minutes=10, **OPTIONS).train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert len(measured) == 2, "once a run"


def test_a_longer_time_adds_steps_in_proportion(ten_images, tmp_path, measured):
    trainer(ten_images, tmp_path, minutes=10, **OPTIONS).train()
    more = trainer(ten_images, tmp_path, minutes=20, **OPTIONS)
    with pytest.warns(UserWarning, match="minutes: 10 before, 20 now"):
        more.train(resume=True)
    assert Checkpoint.find(tmp_path).step == 18
    assert len(measured) == 1


def test_a_run_of_steps_is_not_resumed_with_minutes(ten_images, tmp_path, measured):
    trainer(ten_images, tmp_path, train_num_steps=3).train()
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="a run that began with minutes, got .* Fix: resume it"):
        trainer(ten_images, tmp_path, minutes=10).train(resume=True)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert not measured


def test_processes_agree_on_the_steps_of_a_time(tmp_path):
    assert soak.end(soak.start(tmp_path / "run", 2, minutes=0.02)) == [0, 0]
    checkpoint = Checkpoint.find(tmp_path / "run")
    assert checkpoint.step == checkpoint.state["budget"]["steps"]


@pytest.mark.parametrize(
    "stored", [3, {}, {"minutes": 0, "steps": 9}, {"minutes": 10, "steps": 0.5}]
)
def test_a_damaged_time_is_refused(ten_images, tmp_path, stored):
    trainer(ten_images, tmp_path, train_num_steps=1).train()
    checkpoint = Checkpoint.find(tmp_path)
    state = json.dumps({**checkpoint.state, "budget": stored}).encode()
    rewrite(checkpoint.path, "state.json", state)
    with pytest.raises(ValueError, match=re.escape("state.json has no budget")):
        trainer(ten_images, tmp_path, minutes=10).train(resume=True)


@pytest.mark.parametrize("minutes", [0, -1.0, float("inf"), float("nan")])
def test_minutes_must_be_a_time(ten_images, tmp_path, minutes):
    with pytest.raises(ValueError, match="Expected minutes above 0, got .* Fix: "):
        trainer(ten_images, tmp_path, minutes=minutes)
