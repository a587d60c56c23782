"""Runs survive faults, which are provoked in separate processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import faulty
import pytest
import soak
import torch
from faulty import SlowPictures, Unchecked
from PIL import Image
from runs import batches_of, trainer, write

from diffusion_framework.data.loading.loader import ShuffledBatches
from diffusion_framework.process.noise import mix
from diffusion_framework.storage.checkpoint import (
    Checkpoint,
    list_checkpoints,
    newest_whole_checkpoint,
)
from diffusion_framework.training import Compute, Saving, post_hoc_ema
from diffusion_framework.training.run_lock import RunLock
from diffusion_framework.training.seeds import Purpose
from diffusion_framework.training.signals import NotedSignals
from diffusion_framework.training.stopping import Guard

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "scripts" / "benchmarks"  # the folder of soak.py


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition was not met in time"
        time.sleep(0.01)


def steps_of(results):
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(results)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    results = tmp_path_factory.mktemp("whole") / "run"
    assert soak.end(soak.start(results)) == [0]
    return results


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory):
    """The uninterrupted run of two processes."""
    results = tmp_path_factory.mktemp("whole of two") / "run"
    assert soak.end(soak.start(results, processes=2)) == [0, 0]
    return results


def test_a_kill_at_any_file_operation_of_a_save_leaves_a_whole_checkpoint(tmp_path):
    survived = set()
    for operation in range(100):
        results = tmp_path / str(operation)
        write(results, 1)
        codes = soak.end(soak.start(results, target=faulty.killed_in_save, operation=operation))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            survived.add(newest_whole_checkpoint(results).step)
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL]
        write(results, 3, keep=1)
        assert [path.name for path in (results / "checkpoints").iterdir()] == ["step-00000003"]
    assert 10 < operation < 99, "every operation was interrupted once"
    assert survived == {1, 2}


def test_a_kill_while_pictures_are_written_leaves_only_whole_ones(tmp_path):
    found = []
    for operation in range(100):
        results = tmp_path / f"pictures {operation}"
        codes = soak.end(
            soak.start(results, target=faulty.killed_while_drawing, operation=operation)
        )
        pictures = [*results.glob("*.png")]
        for path in pictures:
            Image.open(path).load()
        found.append(len(pictures))
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL]
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_terminated_run_saves_and_resumes_as_if_uninterrupted(whole, tmp_path, workers):
    """The signal goes to the whole group, data workers included."""
    errors, results = tmp_path / "errors", tmp_path / "run"
    (process,) = soak.start(results, target=faulty.in_own_group, errors=errors, workers=workers)
    wait_for(
        lambda: (
            (results / "log.csv").exists()
            and len((results / "log.csv").read_text().splitlines()) > 2
        )
    )
    os.killpg(process.pid, signal.SIGTERM)
    assert soak.end([process]) == [143]
    said = errors.read_text()
    assert f"SIGTERM: stopped after step {steps_of(results)[-1]} and saved" in said
    assert len(said.strip().splitlines()) == 1, said
    assert soak.end(soak.start(results, workers=workers)) == [0]
    assert not soak.difference(whole, results)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_the_script_ends_with_the_code_of_the_signal(tmp_path, number, code):
    command = [
        sys.executable,
        ROOT / "scripts" / "train.py",
        "--trainer.logging.progress=false",
        "--diffusion.model.dim=8",
    ]
    process = subprocess.Popen(
        [*command, f"--trainer.results_folder={tmp_path / 'run'}", "--trainer.logging.every=1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(
        lambda: (
            (tmp_path / "run" / "log.csv").exists()
            and (tmp_path / "run" / "log.csv").stat().st_size > 100
        )
    )
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert len(error.strip().splitlines()) == 1
    assert len(steps_of(tmp_path / "run")) == 1


def test_a_second_ctrl_c_ends_at_once_without_damage(whole, tmp_path):
    (code,) = soak.end(soak.start(tmp_path, target=faulty.interrupted_twice_in_save))
    assert code not in (0, 130)
    assert steps_of(tmp_path) == [4]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert soak.end(soak.start(tmp_path)) == [0]
    assert not soak.difference(whole, tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_ends_all_processes_and_keeps_the_last_checkpoint(tmp_path, processes):
    errors, results = tmp_path / "errors", tmp_path / "run"
    assert soak.end(soak.start(results, train_num_steps=4)) == [0]
    codes = soak.end(soak.start(results, processes, target=faulty.full_disk, errors=errors))
    assert 0 not in codes
    assert errors.read_text().count("expected to write the checkpoint of step 8") == processes
    assert "Kept are the checkpoints of the steps 4. Fix: free disk space" in errors.read_text()
    assert [path.name for path in (results / "checkpoints").iterdir()] == ["step-00000004"]
    newest_whole_checkpoint(results)


def test_a_run_does_not_start_without_space_for_its_checkpoints(tmp_path):
    disk = tmp_path / "small disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("a disk of its own can only be mounted by root")
    try:
        with pytest.raises(
            ValueError, match=r"2 checkpoints of .* GB, got .* lower saving.keep_newest"
        ):
            trainer(SlowPictures(), disk / "run").train()
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_written_to_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        trainer(SlowPictures(), tmp_path / "file" / "run").train()


def test_a_disk_that_can_only_be_read_is_an_error_before_training(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=4M", "tmpfs", tmp_path]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk of its own can only be mounted by root")
    try:
        with pytest.raises(OSError, match="that can be written, got an error .*Read-only.* Fix: "):
            trainer(SlowPictures(), tmp_path / "run").train()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def step_that_draws(image, seed=0):
    batches = zip(range(100), ShuffledBatches(64, 4, mix(seed, Purpose.ORDER)), strict=False)
    return next(number for number, keys in batches if image in [index for index, _ in keys]) + 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_nan_changes_nothing_and_its_sample_is_named(tmp_path, accumulate):
    bad = 7
    step = -(-step_that_draws(bad) // accumulate)
    assert step > 2
    options = {
        "train_num_steps": 99,
        "save_and_sample_every": 1,
        "gradient_accumulate_every": accumulate,
    }
    options["saving"] = Saving(keep_newest=99)
    run = trainer(SlowPictures(bad=bad), tmp_path, **options)
    run.model.space = Unchecked()
    with pytest.raises(ValueError, match=f"in sample {bad} of the training data"):
        run.train()
    assert steps_of(tmp_path) == list(range(1, step))
    last = Checkpoint.find(tmp_path)
    for name, module in (("model", run.model), ("ema", run.averaged)):
        assert all(
            torch.equal(value, module.state_dict()[key])
            for key, value in last.tensors(name).items()
        )


def test_with_late_results_no_step_after_a_bad_one_changes_the_weights(tmp_path):
    run = trainer(SlowPictures(bad=7), tmp_path)
    run.model.space = Unchecked()
    guard, good = Guard(run.accelerator, NotedSignals(), late=True), step_that_draws(7) - 1
    with batches_of(run) as batches:
        for _ in range(good):
            run.take_step(run.state, batches, guard)
        before = {key: value.clone() for key, value in run.model.state_dict().items()}
        run.take_step(run.state, batches, guard)
        with pytest.raises(FloatingPointError, match=f"of step {good + 1} that is not finite"):
            run.take_step(run.state, batches, guard)
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
    assert all(torch.isfinite(value).all() for value in run.averaged.state_dict().values())


def test_late_and_early_results_train_the_same(tmp_path):
    after = []
    for late in (False, True):
        run = trainer(SlowPictures(), tmp_path)
        guard = Guard(run.accelerator, NotedSignals(), late=late)
        with batches_of(run) as batches:
            for _ in range(5):
                run.take_step(run.state, batches, guard)
        guard.settle()
        after.append(run.model.state_dict())
    assert all(torch.equal(value, after[1][key]) for key, value in after[0].items())


def test_endless_overflow_of_fp16_is_an_error(tmp_path):
    guard = Guard(trainer(SlowPictures(), tmp_path).accelerator, NotedSignals())
    guard.patience = 50
    one, infinite = torch.tensor(1.0), torch.tensor(float("inf"))
    for step in range(1, 200):
        guard.inspect(step, one, infinite if step % 51 else one)
    for step in range(200, 204):
        guard.inspect(step, one, infinite)
    with pytest.raises(FloatingPointError, match="step 204 "):
        guard.inspect(204, one, infinite)


def test_a_nan_on_one_process_stops_both(tmp_path):
    errors = tmp_path / "errors"
    run = soak.start(
        tmp_path / "run", 2, errors=errors, data=SlowPictures(bad=7), train_batch_size=4
    )
    assert soak.end(run) == [1, 1]
    assert "Expected data in [0, 1], got nan to nan in sample" in errors.read_text()


def test_a_data_worker_that_dies_ends_the_run_and_leaves_no_orphans(tmp_path):
    (process,) = soak.start(tmp_path, data=SlowPictures(0.01), workers=2, train_num_steps=10_000)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("needs Linux")
    wait_for(lambda: len(children.read_text().split()) == 2 and steps_of(tmp_path))
    workers = [int(pid) for pid in children.read_text().split()]
    os.kill(workers[0], signal.SIGKILL)
    assert soak.end([process]) == [1]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    newest_whole_checkpoint(tmp_path)


def test_a_folder_has_one_owner_until_it_dies(tmp_path):
    (process,) = soak.start(tmp_path, train_num_steps=100_000, workers=1)
    wait_for(lambda: steps_of(tmp_path))
    with pytest.raises(
        ValueError, match=rf"in use by process {process.pid} on .*choose another results_folder"
    ):
        RunLock(tmp_path)
    process.kill()
    process.join()
    RunLock(tmp_path).release()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_one_of_two_processes_stops_both_together(whole_of_two, tmp_path, victim):
    processes = soak.start(tmp_path, 2)
    wait_for(lambda: steps_of(tmp_path))
    os.kill(processes[victim].pid, signal.SIGTERM)
    assert soak.end(processes) == [143, 143]
    assert soak.end(soak.start(tmp_path, 2)) == [0, 0]
    assert not soak.difference(whole_of_two, tmp_path)


def test_another_number_of_processes_continues_in_the_same_order(tmp_path):
    """The run continues on 1, 2 and 1 processes."""
    for processes, steps in ((1, 4), (2, 8), (1, 12)):
        assert soak.end(soak.start(tmp_path, processes, train_num_steps=steps)) == [0] * processes
    assert steps_of(tmp_path)[-1] == 12
    order = Checkpoint.find(tmp_path).state["order"]
    assert order["images per step"] == 8


def test_sharded_weights_train_the_same_and_serve_any_number_of_processes(whole_of_two, tmp_path):
    options = {"compute": Compute(shard=True), "profiles": (0.05, 0.1)}
    half = {"train_num_steps": 12, "snapshots": 4}
    assert soak.end(soak.start(tmp_path / "cut", 2, **options, **half)) == [0, 0]
    assert soak.end(soak.start(tmp_path / "cut", 2, **options)) == [0, 0]
    whole, sharded = Checkpoint.find(whole_of_two), Checkpoint.find(tmp_path / "cut")
    for name, tolerance in (("model", 1e-4), ("ema", 1e-4), ("optimizer", 1e-3)):
        expected, got = whole.tensors(name), sharded.tensors(name)
        assert expected.keys() == got.keys()
        apart = sum((got[key] - value).norm() ** 2 for key, value in expected.items()) ** 0.5
        assert apart < tolerance * sum(value.norm() ** 2 for value in expected.values()) ** 0.5
    assert soak.end(soak.start(tmp_path / "whole", 2, **options)) == [0, 0]
    assert not soak.difference(tmp_path / "whole", tmp_path / "cut"), "snapshots are alike, too"
    assert len(sharded.state["profiles"]["snapshots"]) == 8
    averages = post_hoc_ema(tmp_path / "cut", 0.08)
    expected = sharded.tensors("model")
    apart = sum((averages[key] - value).norm() ** 2 for key, value in expected.items()) ** 0.5
    assert 0 < apart < 0.1 * sum(value.norm() ** 2 for value in expected.values()) ** 0.5
    shutil.rmtree(tmp_path / "whole")
    more = {"train_num_steps": 25, "profiles": (0.05, 0.1)}
    assert soak.end(soak.start(tmp_path / "cut", 1, **more)) == [0]


TORCHRUN = (
    "import sys; sys.path.insert(0, sys.argv[1]); import soak; soak.train(sys.argv[2], 0, 1, 0, {})"
)


def two_hosts(results, script, port):
    """Starts torchrun on two hosts (loopback addresses), each with one process, on one disk."""
    script.write_text(TORCHRUN)
    env = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    launch += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    return [
        subprocess.Popen(
            [
                *launch,
                f"--node_rank={rank}",
                f"--local_addr=127.0.0.{rank + 1}",
                script,
                BENCHMARKS,
                results,
            ],
            env=env,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for rank in range(2)
    ]


def descendants(pid):
    children = [
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    ]
    return [pid, *(process for child in children for process in descendants(child))]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_run_resumes_after_one_of_two_hosts_dies(whole_of_two, tmp_path):
    hosts = two_hosts(tmp_path / "run", tmp_path / "script.py", soak.free_port())
    wait_for(lambda: steps_of(tmp_path / "run"), seconds=120)
    for process in descendants(hosts[1].pid):
        os.kill(process, signal.SIGKILL)
    assert hosts[0].wait(timeout=120) != 0, "the other host notices"
    assert steps_of(tmp_path / "run")[-1] < 24
    hosts = two_hosts(tmp_path / "run", tmp_path / "script.py", soak.free_port())
    assert [host.wait(timeout=120) for host in hosts] == [0, 0]
    assert not soak.difference(whole_of_two, tmp_path / "run")


def test_ten_random_kills(tmp_path):
    seed = time.time_ns() % 1000
    counts = soak.soak(tmp_path, kills=10, seed=seed)
    assert counts["kills"] == 10 and counts["runs ended"] >= 1
    assert soak.soak(tmp_path, kills=10, seed=seed) == counts, "finished trials are not repeated"
