"""A run that leaves early, for whatever reason, first saves its last whole state."""

import errno
import math
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from faulty import SlowPictures
from runs import assert_same_run, trainer
from torch._C import _error_if_any_worker_fails
from torch.utils.data import DataLoader

from diffusion_framework.data.loading.loader import ShuffledBatches
from diffusion_framework.process.noise import mix
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints, step_of
from diffusion_framework.training import Loading, Previews, Saving
from diffusion_framework.training.log import TrainingLog
from diffusion_framework.training.seeds import Purpose

BATCHES = ShuffledBatches(64, 4, mix(0, Purpose.ORDER))
IMAGE = next(keys for number, keys in enumerate(BATCHES) if number == 4)[0][0]  # of step 5
OPTIONS = {"train_num_steps": 8, "save_and_sample_every": 8}


class Pictures(SlowPictures):
    """Images of which one does something before it is drawn."""

    def __init__(self, action=None):
        super().__init__()
        self.action = action

    def __getitem__(self, index):
        if index == IMAGE and self.action is not None:
            self.action()
        return super().__getitem__(index)


def steps_of(results):
    return [step_of(path) for path in list_checkpoints(results)]


def raises(error):
    def action(*args, **kwargs):
        raise error

    return action


def signals_itself(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)


def sleeps(*args, **kwargs):
    threading.Event().wait()


def sleeps_after_a_signal():
    threading.Timer(0.1, signals_itself).start()
    sleeps()


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def stops():
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture(scope="module")
def every_step(tmp_path_factory):
    """An uninterrupted run that keeps the checkpoint of each step."""
    results = tmp_path_factory.mktemp("whole") / "run"
    options = {"save_and_sample_every": 1, "saving": Saving(keep_newest=9)}
    trainer(Pictures(), results, **{**OPTIONS, **options}, previews=Previews(0)).train()
    return results


def ends_after_a_whole_step(run, every_step, error, match, steps=(4,)):
    with pytest.raises(error, match=match):
        run.train()
    (step,) = steps_of(run.results_folder)
    assert step in steps
    assert not list(run.results_folder.glob("checkpoints/.tmp-*"))
    assert_same_tensors(every_step, run.results_folder, step)


def assert_same_tensors(a, b, step):
    one, two = (Checkpoint.open(run / f"checkpoints/step-{step:08d}") for run in (a, b))
    for name in ("model", "ema", "optimizer"):
        tensors, others = one.tensors(name), two.tensors(name)
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)


@pytest.mark.parametrize(
    ("action", "workers", "timeout", "error", "match"),
    [
        (raises(ValueError("a broken picture")), 0, 0, ValueError, "a broken picture"),
        (raises(OSError("no server")), 1, 0, OSError, "no server"),
        (raises(KeyError("column")), 0, 0, KeyError, "column"),
        (raises(SystemExit(3)), 0, 0, SystemExit, "3"),
        (sleeps, 0, 1, OSError, "batch within 1 s, got none.*raise loading.timeout"),
        (stops, 1, 1, OSError, "batch within 1 s, got none from 1 data workers"),
        (dies, 1, 0, OSError, "Expected 1 data workers, got the end of one.*resume"),
        (sleeps_after_a_signal, 0, 0, SystemExit, "143"),
    ],
)
def test_whatever_happens_to_the_data_nothing_is_lost(
    every_step, tmp_path, action, workers, timeout, error, match
):
    loading = Loading(num_workers=workers, timeout=timeout)
    run = trainer(Pictures(action), tmp_path, loading=loading, **OPTIONS)
    # A worker draws two batches ahead, and may take batches that it has not sent with it.
    steps = (2, 3, 4) if action in (stops, dies) else (4,)
    ends_after_a_whole_step(run, every_step, error, match, steps)
    _error_if_any_worker_fails()  # as PyTorch's handler does at the end of any later process


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="Windows has no SIGCHLD")
def test_a_worker_that_dies_interrupts_no_step(tmp_path):
    """Also where another data loader of this process has set PyTorch's handler."""
    list(DataLoader([0, 1], num_workers=1))
    run = trainer(Pictures(), tmp_path, loading=Loading(num_workers=1), **OPTIONS)
    before = signal.getsignal(signal.SIGCHLD)

    others = set(multiprocessing.active_children())

    def kill_the_worker():
        (worker,) = set(multiprocessing.active_children()) - others
        worker.kill()
        time.sleep(0.2)

    in_step(5, run, kill_the_worker)
    with pytest.raises(OSError, match="Expected 1 data workers, got the end of one"):
        run.train()
    assert steps_of(tmp_path)[0] >= 5
    assert signal.getsignal(signal.SIGCHLD) is before
    _error_if_any_worker_fails()


def test_a_stop_signal_is_heard_while_a_data_worker_hangs(every_step, tmp_path):
    loading = Loading(num_workers=1)
    run = trainer(Pictures(sleeps), tmp_path, loading=loading, **OPTIONS)
    take_step = run.take_step

    def step(state, batches, guard):
        if state.step == 4:
            threading.Timer(0.1, signals_itself).start()
        return take_step(state, batches, guard)

    run.take_step = Wrapped(take_step, step)
    ends_after_a_whole_step(run, every_step, SystemExit, "143")


class Wrapped:
    """A function with the attributes of another."""

    def __init__(self, original, function):
        self.original, self.function = original, function

    def __call__(self, *args):
        return self.function(*args)

    def __getattr__(self, name):
        return getattr(self.original, name)


def in_step(number, run, action):
    forward = run.model.forward

    def acting(*args, **kwargs):
        if run.state.step == number - 1:
            action()
        return forward(*args, **kwargs)

    run.model.forward = acting


@pytest.mark.parametrize("error", [RuntimeError("own network"), MemoryError("out of memory")])
def test_an_error_of_the_model_loses_nothing(every_step, tmp_path, error):
    run = trainer(Pictures(), tmp_path, **OPTIONS)
    in_step(5, run, raises(error))
    ends_after_a_whole_step(run, every_step, type(error), str(error))


def test_an_error_within_an_optimizer_step_saves_nothing(tmp_path):
    run = trainer(Pictures(), tmp_path, **OPTIONS)
    update = run.state.ema.update
    run.state.ema.update = lambda: update() if run.state.step < 4 else raises(RuntimeError("x"))()
    with pytest.raises(RuntimeError, match="x"):
        run.train()
    assert steps_of(tmp_path) == []


def test_nothing_is_saved_after_a_nan(tmp_path):
    run = trainer(Pictures(), tmp_path, **OPTIONS)
    forward = run.model.forward
    run.model.forward = lambda *args, **kwargs: (
        forward(*args, **kwargs) * (math.nan if run.state.step == 4 else 1)
    )
    with pytest.raises(FloatingPointError):
        run.train()
    assert steps_of(tmp_path) == []


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    pictures = Pictures()
    run = trainer(pictures, tmp_path, **OPTIONS)

    def spoil():
        with torch.no_grad():
            next(run.averaged.parameters()).fill_(math.inf)
        raise OSError("no server")

    pictures.action = spoil
    with pytest.raises(OSError, match="no server"):
        run.train()
    assert steps_of(tmp_path) == []


def test_no_checkpoint_is_written_after_a_step_to_weights_that_are_not_finite(tmp_path):
    run = trainer(Pictures(), tmp_path, **{**OPTIONS, "save_and_sample_every": 4})
    update = run.state.ema.update

    def spoil():
        update()
        if run.state.step >= 7:  # of the last step, after which no loss would tell
            with torch.no_grad():
                next(run.model.parameters()).fill_(math.inf)

    run.state.ema.update = spoil
    with pytest.raises(FloatingPointError, match=r"finite weights after step 8.* Fix: "):
        run.train()
    assert steps_of(tmp_path) == [4]


@pytest.mark.parametrize("file", ["log.csv", "validation.csv"])
@pytest.mark.parametrize("damage", [b"\xff\x00\xfe", b"9" * 200_000, b'"', b"\xb2,1,1,1,1\n"])
def test_a_damaged_table_stops_no_resume(tmp_path, file, damage):
    options = {"validation": SlowPictures(), "save_and_sample_every": 2}
    trainer(Pictures(), tmp_path, **options, train_num_steps=2).train()
    for place in (0, -1):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(damage + content if place == 0 else content + damage)
        steps = 4 if place == 0 else 6
        trainer(Pictures(), tmp_path, **options, train_num_steps=steps).train(resume=True)
        last = (tmp_path / file).read_text().splitlines()[-1]
        assert last.startswith(f"{steps},")


def test_a_full_disk_is_said_whatever_could_not_be_written(tmp_path, monkeypatch):
    run = trainer(Pictures(), tmp_path, **{**OPTIONS, "save_and_sample_every": 4})
    full = raises(OSError(errno.ENOSPC, "No space left on device"))
    in_step(6, run, lambda: monkeypatch.setattr(TrainingLog, "write", full))
    with pytest.raises(OSError, match=r"No space left.* MB free. Kept are .* steps 4.* Fix: "):
        run.train()
    assert 4 in steps_of(tmp_path)


@pytest.mark.parametrize("task", ["validation_metrics", "previews"])
@pytest.mark.parametrize("action", ["error", "endless"])
def test_validation_and_previews_lose_nothing_and_are_done_by_the_resumed_run(
    tmp_path, task, action
):
    """Saving comes after validation where it tells which checkpoints are best."""

    def run(name):
        options = {"validation": SlowPictures(), "save_and_sample_every": 2, "train_num_steps": 2}
        return trainer(Pictures(), tmp_path / name, **options)

    run("whole").train()
    stopped = run("parts")
    fault = raises(OSError("x")) if action == "error" else lambda *a, **k: sleeps_after_a_signal()
    setattr(stopped.averaged, task, fault)
    with pytest.raises(OSError if action == "error" else SystemExit):
        stopped.train()
    assert Checkpoint.find(tmp_path / "parts").step == 2
    left = {"preview", "validate"} if task == "validation_metrics" else {"preview"}
    assert set(Checkpoint.find(tmp_path / "parts").state["left"]) == left
    run("parts").train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    for name in ("validation.csv", "samples/step-00000002.png"):
        whole, parts = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()


def test_a_row_of_the_log_that_could_not_be_written_is_written_by_the_resumed_run(tmp_path):
    whole, tmp_path = tmp_path / "whole", tmp_path / "parts"
    trainer(Pictures(), whole, **OPTIONS).train()
    whole, tmp_path = tmp_path / "whole", tmp_path / "parts"
    trainer(Pictures(), whole, **OPTIONS).train()
    run = trainer(Pictures(), tmp_path, **OPTIONS)

    def blocked():
        (tmp_path / "log.csv").rename(tmp_path / "aside")
        (tmp_path / "log.csv").mkdir()

    in_step(5, run, blocked)
    with pytest.raises(OSError, match="log.csv"):
        run.train()
    assert steps_of(tmp_path) == [6]
    (tmp_path / "log.csv").rmdir()
    (tmp_path / "aside").rename(tmp_path / "log.csv")
    trainer(Pictures(), tmp_path, **OPTIONS).train(resume=True)
    assert_same_run(whole, tmp_path)


def test_a_row_that_was_written_before_another_process_failed_is_kept(tmp_path, monkeypatch):
    whole, results = tmp_path / "whole", tmp_path / "run"
    trainer(Pictures(), whole, **OPTIONS).train()
    run, write = trainer(Pictures(), results, **OPTIONS), TrainingLog.write

    def write_and_fail(log, step, lr):
        write(log, step, lr)
        if step == 6:
            raise RuntimeError("the other process is gone")

    monkeypatch.setattr(TrainingLog, "write", write_and_fail)
    with pytest.raises(RuntimeError, match="gone"):
        run.train()
    monkeypatch.undo()
    assert steps_of(results) == [6]
    assert "log" in Checkpoint.find(results).state["left"]
    trainer(Pictures(), results, **OPTIONS).train(resume=True)
    assert_same_run(whole, results)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "small disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk of its own can only be mounted by root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("room", [0, 50_000])
def test_a_full_disk_keeps_what_there_is_and_says_so(every_step, small_disk, room):
    results = small_disk / "run"
    run = trainer(Pictures(), results, **{**OPTIONS, "save_and_sample_every": 2})

    def fill():
        with open(small_disk / "other", "wb", buffering=0) as file:
            try:
                while file.write(bytes(1000)):
                    pass
            except OSError:
                file.truncate(max(0, os.path.getsize(small_disk / "other") - room))

    in_step(5, run, fill)
    with pytest.raises(OSError, match="No space|no space") as caught:
        run.train()
    message = str(caught.value)
    if room:
        assert "expected to write the checkpoint of step 6, which takes" in message
        assert "MB free. Kept are the checkpoints of the steps 2, 4. Fix: free disk" in message
    assert steps_of(results) == [2, 4]
    assert not list(results.glob("checkpoints/.tmp-*"))
    (small_disk / "other").unlink()
    run = trainer(Pictures(), results, **{**OPTIONS, "save_and_sample_every": 2})
    run.train(resume=True)
    assert_same_tensors(every_step, results, 8)


def test_the_checkpoint_that_is_saved_before_leaving_is_not_pruned(tmp_path):
    options = {**OPTIONS, "save_and_sample_every": 1, "saving": Saving(keep_newest=1)}
    run = trainer(Pictures(raises(OSError("x"))), tmp_path, **options)
    with pytest.raises(OSError, match="x"):
        run.train()
    assert steps_of(tmp_path) == [4]
    assert Path(tmp_path / "checkpoints" / "step-00000004").exists()
