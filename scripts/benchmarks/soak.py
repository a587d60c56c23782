"""Kills a short run at random moments, resumes it, and compares its end with an uninterrupted run.

    python scripts/benchmarks/soak.py --kills 50

The results must be equal bit for bit. Three variants take turns: one process, one process with two
data workers and gradient accumulation, and two processes. Half of the signals are SIGKILL, half
SIGTERM. Of two processes one is killed, and the other is then ended in the way of launchers.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "scripts" / "benchmarks")]
sys.path[:0] = PATHS
# The fork server imports modules before it is told any path.
os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, *filter(None, [os.environ.get("PYTHONPATH")])])

# Each run is a separate process, forked after the imports.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "diffusion_framework.training",
        "soak",
        "torch.utils.tensorboard",
        "torch._dynamo",
        "sklearn.datasets",
    ]
)
VARIANTS = {
    "one process": {"processes": 1},
    "data workers, accumulating": {"processes": 1, "workers": 2, "gradient_accumulate_every": 2},
    "two processes": {"processes": 2},
}


def train(results: str, rank: int, processes: int, port: int, options: dict) -> None:
    """Trains one process of a small run, resumed from its newest checkpoint."""
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    import torch

    from diffusion_framework import Digits, GaussianDiffusion, Trainer, UNet
    from diffusion_framework.training import Loading, Logging, Previews

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = UNet(
        dim=8,
        dim_mults=(1, 2),
        channels=1,
        image_size=8,
        blocks=1,
        heads=1,
        dim_head=8,
        dropout=0.1,
    )
    defaults = {
        "train_batch_size": 8,
        "train_num_steps": 24,
        "save_and_sample_every": 4,
        "num_samples": 4,
    }
    defaults |= {"ema_update_every": 1, "logging": Logging(every=3, progress=False)}
    defaults |= {
        "previews": Previews(sampling_steps=2),
        "loading": Loading(options.pop("workers", 0)),
    }
    diffusion = GaussianDiffusion(network, timesteps=4)
    Trainer(
        diffusion,
        options.pop("data", None) or Digits(),
        results_folder=results,
        **{**defaults, **options},
    ).train(resume="auto")


def start(
    results: Path, processes: int = 1, target=train, errors: Path | None = None, **options
) -> list:
    """Starts and returns the processes of a run; the file `errors` receives their stderr."""
    port = free_port()
    started = [
        CONTEXT.Process(
            target=_run, args=(errors, target, str(results), rank, processes, port, options)
        )
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    return started


def free_port() -> int:
    """Returns an unused port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _run(errors: Path | None, target, *arguments) -> None:
    multiprocessing.set_start_method(None, force=True)  # data workers start as in any other run
    if errors is not None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    target(*arguments)


def stop(processes: list, first: multiprocessing.Process, grace: float = 15) -> None:
    """Ends the other processes of a run in the way of launchers: SIGTERM, then SIGKILL.

    A process that waits for a dead one while a collective is set up reacts only to SIGKILL.

    Args:
        processes: All processes of the run.
        first: Process that was killed first.
        grace: Seconds before each signal.
    """
    first.join(grace)
    for kill in ("terminate", "kill"):
        for process in processes:
            getattr(process, kill)()
        until = time.monotonic() + grace
        for process in processes:
            process.join(max(0, until - time.monotonic()))


def end(processes: list, timeout: float = 60) -> list[int]:
    """Waits for the processes and returns their exit codes.

    Raises:
        TimeoutError: If a process does not end in time; it is then killed.
    """
    until = time.monotonic() + timeout
    for process in processes:
        process.join(max(0, until - time.monotonic()))
    if stuck := [process for process in processes if process.is_alive()]:
        for process in stuck:
            process.kill()
        raise TimeoutError(f"{len(stuck)} processes did not end within {timeout} s")
    return [process.exitcode for process in processes]


def difference(a: Path, b: Path) -> str:
    """Returns the name of the first difference between two finished runs, or an empty text."""
    import torch

    from diffusion_framework.storage.checkpoint import Checkpoint

    first, second = Checkpoint.find(a), Checkpoint.find(b)
    if first.step != second.step:
        return f"step {first.step}, not {second.step}"
    for name in ("model", "ema", "optimizer"):
        tensors, others = first.tensors(name), second.tensors(name)
        if tensors.keys() != others.keys() or not all(
            torch.equal(tensors[key], others[key]) for key in tensors
        ):
            return name
    if json.dumps(first.state) != json.dumps(second.state):
        return "state.json"
    # Every column but the speed is compared.
    logs = [[row[:4] for row in csv.reader((run / "log.csv").open())] for run in (a, b)]
    return "" if logs[0] == logs[1] else "log.csv"


def soak(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Runs, kills and resumes up to a number of kills; returns counts.

    Raises:
        AssertionError: If a run fails, or differs from the uninterrupted run.
    """
    from diffusion_framework.storage.checkpoint import list_checkpoints, newest_whole_checkpoint

    chance = random.Random(seed)
    counts = {"kills": 0, "SIGKILL": 0, "SIGTERM": 0, "in a save": 0, "runs ended": 0}
    references, seconds = {}, {}
    for name, variant in VARIANTS.items():
        references[name], began = folder / f"whole {name}", time.monotonic()
        assert set(end(start(references[name], **variant))) == {0}, (
            f"the uninterrupted run failed: {name}"
        )
        seconds[name] = time.monotonic() - began
    while counts["kills"] < kills:
        name = list(VARIANTS)[counts["runs ended"] % len(VARIANTS)]
        run = folder / f"run {counts['runs ended']}"
        while True:
            errors = folder / f"errors of run {counts['runs ended']}"
            processes = start(run, errors=errors, **VARIANTS[name])
            kind = chance.choice([signal.SIGKILL, signal.SIGTERM])
            victim = chance.choice(processes)
            victim.join(chance.uniform(0, 1.2 * seconds[name]))
            killed = counts["kills"] < kills and victim.is_alive()
            if killed:
                os.kill(victim.pid, kind)
                stop(processes, victim)
            codes = end(processes)
            if set(codes) == {0}:
                break
            assert killed, (
                f"{name}: exit codes {codes} without a kill, seed {seed}: {errors.read_text()}"
            )
            counts["kills"] += 1
            counts[kind.name] += 1
            counts["in a save"] += any((run / "checkpoints").glob(".tmp-*"))
            if list_checkpoints(run):
                newest_whole_checkpoint(run)  # raises if all are damaged
            print(f"{counts['kills']}: {name}, {kind.name}, exit codes {codes}", flush=True)
        counts["runs ended"] += 1
        assert not (different := difference(references[name], run)), (
            f"{name}: {different} differs, seed {seed}"
        )
        assert not list((run / "checkpoints").glob(".tmp-*"))
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        print(
            soak(Path(temporary), arguments.kills, arguments.seed),
            f"{time.monotonic() - began:.0f} s: all runs equal",
        )
