"""Kills a short run at random moments, resumes it, and compares its end with an uninterrupted run.

    python scripts/benchmarks/soak.py --kills 50
    python scripts/benchmarks/soak.py --kills 200 --folder soak  # continues where it was stopped

The results must be equal bit for bit. Three variants take turns: one process, one process with two
data workers and gradient accumulation, and two processes. Half of the signals are SIGKILL, half
SIGTERM. Of two processes one is killed, and the other is then ended in the way of launchers.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import multiprocessing
import os
import random
import shutil
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
    "one process": {"processes": 1, "profiles": (0.05, 0.1)},
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

    from diffusion_framework import GaussianDiffusion, Trainer, UNet
    from diffusion_framework.data import Digits
    from diffusion_framework.training import EMA, Loading, Logging, Previews

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
        "ema": EMA(profiles=options.pop("profiles", ()), snapshots=options.pop("snapshots", 8)),
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
    """Runs trials up to a number of kills; returns counts.

    A trial kills and resumes one run until it ends. Its result is in a file `trial-NNNNN.json` of
    the folder. Trials whose file exists are not repeated, so that a stopped soak continues.

    Raises:
        AssertionError: If a run fails, or differs from the uninterrupted run.
    """
    counts = dict.fromkeys(("kills", "SIGKILL", "SIGTERM", "in a save", "runs ended"), 0)
    for number in itertools.count():
        file = folder / f"trial-{number:05d}.json"
        if not file.exists():
            name = list(VARIANTS)[number % len(VARIANTS)]
            result = trial(folder, number, name, kills - counts["kills"], seed)
            write_result(file, result)
        for kill in json.loads(file.read_text())["kills"]:
            counts["kills"] += 1
            counts[kill["signal"]] += 1
            counts["in a save"] += kill["in a save"]
        counts["runs ended"] += 1
        if counts["kills"] >= kills:
            return counts


def trial(folder: Path, number: int, name: str, most: int, seed: int) -> dict:
    """Kills and resumes a run until it ends, and compares it with the uninterrupted run.

    Args:
        folder: Folder of all runs.
        number: Number of the trial.
        name: Variant of the run.
        most: Largest number of kills.
        seed: Seed of the soak.

    Returns:
        The variant, its kills and its seconds.
    """
    from diffusion_framework.storage.checkpoint import list_checkpoints, newest_whole_checkpoint

    whole, seconds = reference(folder, name)
    run, errors = folder / f"run {number}", folder / f"errors of run {number}"
    shutil.rmtree(run, ignore_errors=True)  # of a trial that was stopped
    errors.unlink(missing_ok=True)
    chance, kills, began = random.Random(f"{seed} {number}"), [], time.monotonic()
    while True:
        processes = start(run, errors=errors, **VARIANTS[name])
        kind, victim = chance.choice([signal.SIGKILL, signal.SIGTERM]), chance.choice(processes)
        victim.join(chance.uniform(0, 1.2 * seconds))
        killed = len(kills) < most and victim.is_alive()
        if killed:
            os.kill(victim.pid, kind)
            stop(processes, victim)
        codes = end(processes)
        if set(codes) == {0}:
            break
        assert killed, f"{name}: exit codes {codes} without a kill, seed {seed}: {errors}"
        in_a_save = any((run / "checkpoints").glob(".tmp-*"))
        if list_checkpoints(run):
            newest_whole_checkpoint(run)  # raises if all are damaged
        kills.append({"signal": kind.name, "in a save": in_a_save, "exit codes": codes})
        print(f"trial {number}, {name}: {kind.name}, exit codes {codes}", flush=True)
    different = difference(whole, run)
    assert not different, f"{name}: {different} differs, seed {seed}: {run}"
    assert not list((run / "checkpoints").glob(".tmp-*"))
    shutil.rmtree(run)
    errors.unlink(missing_ok=True)
    return {"variant": name, "kills": kills, "seconds": round(time.monotonic() - began, 1)}


def reference(folder: Path, name: str) -> tuple[Path, float]:
    """Returns the uninterrupted run of a variant, made if needed, and its seconds."""
    whole, file = folder / f"whole {name}", folder / f"whole {name}.json"
    if not file.exists():
        shutil.rmtree(whole, ignore_errors=True)
        end(start(whole, target=nothing))  # the fork server has then imported everything
        began = time.monotonic()
        codes = end(start(whole, **VARIANTS[name]))
        assert set(codes) == {0}, f"the uninterrupted run failed: {name}"
        write_result(file, {"seconds": time.monotonic() - began})
    return whole, json.loads(file.read_text())["seconds"]


def nothing(*arguments) -> None:
    """Does nothing in a process of its own."""


def write_result(file: Path, result: dict) -> None:
    """Writes a JSON file that is whole or absent."""
    aside = file.with_suffix(".tmp")
    aside.write_text(json.dumps(result, indent=1))
    aside.replace(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where results stay; a stopped soak continues")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        counts = soak(place, arguments.kills, arguments.seed)
    print(counts, f"{time.monotonic() - began:.0f} s: all runs equal")
