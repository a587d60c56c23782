"""Tests of what a stopped run does at once, and of what it leaves to the resumed run."""

import os
import signal

import pytest
import torch
from runs import assert_same_run
from toys import QUIET, tiny_diffusion

from diffusion_framework import Trainer
from diffusion_framework.training import Previews, Saving
from diffusion_framework.training.tasks import due_tasks


def test_tasks_are_due_at_their_intervals_and_at_the_end():
    every = {"log": 3, "save": 4, "preview": None, "validate": 0}
    due = {step: due_tasks(step, every, last=step == 7) for step in range(1, 8)}
    assert due == {
        1: set(),
        2: set(),
        3: {"log"},
        4: {"log", "save", "preview"},
        5: set(),
        6: {"log"},
        7: {"log", "save", "preview"},
    }


@pytest.mark.parametrize("step", [1, 2])
def test_a_stop_signal_saves_first_and_a_resumed_run_does_what_was_left(tmp_path, step):
    """Validation and previews may take minutes; a batch system waits for seconds."""

    def run(name):
        torch.manual_seed(0)
        return Trainer(
            tiny_diffusion(),
            torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)),
            validation=list(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))),
            train_batch_size=2,
            train_num_steps=4,
            save_and_sample_every=2,
            num_samples=1,
            results_folder=tmp_path / name,
            **QUIET,
        )

    run("whole").train()
    stopped = run("parts")
    clip = stopped.state.clip_gradients

    def clip_and_stop(max_norm):
        if stopped.state.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return clip(max_norm)

    stopped.state.clip_gradients = clip_and_stop
    with pytest.raises(SystemExit) as end:
        stopped.train()
    assert end.value.code == 143
    files = {path.name for path in (tmp_path / "parts").iterdir()}
    assert "validation.csv" not in files and "samples" not in files
    run("parts").train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    for name in ("validation.csv", "samples/step-00000002.png", "samples/step-00000004.png"):
        whole, parts = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()


def test_a_resumed_run_deletes_what_a_killed_run_had_no_time_to_delete(tmp_path):
    def run(keep):
        torch.manual_seed(0)
        options = {"train_batch_size": 2, "train_num_steps": 4, "save_and_sample_every": 1}
        options |= {"previews": Previews(every=0), "saving": Saving(keep_newest=keep), **QUIET}
        data = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        return Trainer(tiny_diffusion(), data, results_folder=tmp_path, **options)

    run(keep=4).train()
    (tmp_path / "checkpoints" / ".tmp-00000005").mkdir()
    run(keep=2).train(resume=True)
    found = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert found == ["step-00000003", "step-00000004"]
