"""Several processes of a run fail together, and one line names the process and the cause."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soak
import torch
from faulty import FaultyOnRank, SlowPictures
from PIL import Image

from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints, step_of
from diffusion_framework.training import Compute

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "scripts" / "benchmarks"
OPTIONS = {"train_num_steps": 24, "save_and_sample_every": 99}


def steps_of(results):
    return [step_of(path) for path in list_checkpoints(results)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of two processes that ends after step 2."""
    results = tmp_path_factory.mktemp("whole of two") / "run"
    start = {"data": SlowPictures(), "save_and_sample_every": 2}
    assert soak.end(soak.start(results, 2, **start, train_num_steps=2)) == [0, 0]
    return results


@pytest.mark.parametrize(
    ("kind", "rank", "codes", "message"),
    [
        ("error", 1, [1, 1], "rank 1: ValueError: .*png is broken"),
        ("invalid", 1, [1, 1], "InvalidSampleError: .* in sample .* of the training data"),
        ("SIGKILL", 1, [1, -9], r"no answer from rank 1 \(process \d+ on .*\): it ended"),
        ("SIGSTOP", 1, [1, None], r"no answer from rank 1 \(process \d+ on .*\): .* stopped"),
        ("hang", 1, [143, 143], "SIGTERM: stopped after step 2 and saved"),
        ("SIGTERM", 1, [143, 143], "SIGTERM: stopped after step 2 and saved"),
    ],
)
def test_both_processes_end_with_the_state_before_the_fault(
    whole, tmp_path, kind, rank, codes, message
):
    errors, results = tmp_path / "errors", tmp_path / "run"
    options = {
        "data": FaultyOnRank(kind, rank, tmp_path / "hangs"),
        "compute": Compute(timeout=2),
        **OPTIONS,
    }
    processes = soak.start(results, 2, errors=errors, **options)
    if kind == "SIGSTOP":
        processes[0].join(60)
        processes[1].kill()
        codes = [1, -9]
    if kind == "hang":
        while not (tmp_path / "hangs").exists():
            assert processes[1].is_alive()
            time.sleep(0.01)
        for process in processes:
            process.terminate()
    assert soak.end(processes) == codes
    assert re.search(message, errors.read_text()), errors.read_text()
    assert steps_of(results) == [2]
    one, two = Checkpoint.find(whole), Checkpoint.find(results)
    for name in ("model", "ema", "optimizer"):
        tensors, others = one.tensors(name), two.tensors(name)
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)


def launched(script, *words, cpu=True, **options):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    launch += ["--master_addr=127.0.0.1", f"--master_port={soak.free_port()}"]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    env |= {"ACCELERATE_USE_CPU": "true"} if cpu else {}
    return subprocess.Popen([*launch, script, *words], env=env, text=True, **options)


def lines_of_the_script(stderr):
    return [line for line in stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("fault", ["single processes", "broken picture"])
def test_a_launched_script_says_in_one_line_what_is_wrong(tmp_path, ten_images, fault):
    pictures = sorted(ten_images.iterdir())
    pictures[3].write_bytes(pictures[3].read_bytes()[:60])
    with Image.open(pictures[0]) as image:
        assert image.mode == "L"
    words = ["--diffusion.model.dim=8", "--diffusion.model.image_size=8"]
    words += ["--diffusion.model.channels=1", f"--data.folder={ten_images}", "--data.broken=error"]
    words += ["--trainer.loading.cache=off", "--trainer.train_batch_size=2"]
    words += [f"--trainer.results_folder={tmp_path / 'run'}"]
    script = ROOT / "scripts" / "train.py"
    single = fault == "single processes"
    run = launched(script, *words, cpu=not single, stderr=subprocess.PIPE)
    _, stderr = run.communicate(timeout=120)
    (line,) = lines_of_the_script(stderr)
    assert re.match("error: rank [01]: Expected ", line) and "Fix: " in line
    if single:
        assert "2 single runs" in line and "ACCELERATE_USE_CPU=true" in line
        assert not (tmp_path / "run").exists()
    else:
        assert pictures[3].name in line


def descendants(pid):
    children = [
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    ]
    return [*children, *(other for child in children for other in descendants(child))]


def is_running(pid):
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_launcher_that_dies_takes_its_processes_with_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1]); import soak; "
        "soak.train(sys.argv[2], 0, 1, 0, {'train_num_steps': 10**6, 'workers': 1})"
    )
    launcher = launched(script, BENCHMARKS, tmp_path / "run", stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not steps_of(tmp_path / "run"):
        assert time.monotonic() < until and launcher.poll() is None
        time.sleep(0.05)
    processes = descendants(launcher.pid)
    assert len(processes) >= 4, "two processes and their data workers"
    launcher.kill()
    launcher.wait()
    while any(is_running(pid) for pid in processes):
        assert time.monotonic() < until
        time.sleep(0.05)
    Checkpoint.find(tmp_path / "run").verify()
