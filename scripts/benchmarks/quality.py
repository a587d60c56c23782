"""Measures the quality of samples after equal CPU minutes of training, beside other libraries.

    python scripts/benchmarks/quality.py FILE.json --folder TRAIN --held_out HELD --size 28 \\
        --channels 1 --minutes 15 --seeds 0 1 2 --ours auto="--config auto" --peers 1e-4 1e-3

Each contestant is trained in a process with one thread for a number of steps that takes the given
CPU minutes, measured before by two short runs. It then draws samples in 10 and 50 network calls,
and the Frechet and kernel distances to the held-out images are measured in features of a network
that is trained on the training images. `--ours NAME="FLAGS"` adds a contestant of ours with flags
of `diffusion train`; `--peers RATE ...` adds both other libraries with these learning rates.

FILE.json gets each result as soon as it is there; a contestant whose result it holds is not trained
again. Runs lie in --work, outside the working tree. Times are CPU times, so other load on the
machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework.storage.replacing import replacing

ROOT = Path(__file__).resolve().parents[2]

PEERS = ("denoising-diffusion-pytorch", "diffusers")
_SHORT, _LONG = 10, 50  # steps of the two runs that measure a step


@dataclass(frozen=True)
class Setting:
    """The data and the time of all contestants.

    Args:
        folder: Folder of the training images.
        held_out: Folder of the images to compare with.
        size: Height and width in pixels.
        channels: Number of channels.
        minutes: CPU minutes of training.
        samples: Number of samples, in hundreds.
        calls: Numbers of network calls for a sample.
        flip: Whether images may be flipped.
        work: Folder for the runs.
    """

    folder: str
    held_out: str
    size: int
    channels: int
    minutes: float
    samples: int
    calls: list[int]
    flip: bool
    work: Path


def cpu_seconds(command: list[str]) -> float:
    """Runs a command with one thread; returns the CPU seconds that it took."""
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **threads, "PYTHONPATH": path}
    )
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Contestant(Protocol):
    """A way to train on a folder and to sample from the result."""

    name: str

    def train(self, setting: Setting, steps: int, seed: int, results: Path) -> list[str]:
        """Returns the command that trains for a number of steps."""

    def sample(self, setting: Setting, seed: int, results: Path) -> list[str] | None:
        """Returns the command that writes samples, or None where the evaluation draws them."""


@dataclass(frozen=True)
class Ours:
    """This library with flags of `diffusion train`."""

    name: str
    flags: str

    def train(self, setting: Setting, steps: int, seed: int, results: Path) -> list[str]:
        size = {"image_size": setting.size, "channels": setting.channels}
        trainer = {
            "train_num_steps": steps,
            "save_and_sample_every": 10**6,
            "results_folder": results,
            "seed": seed,
            "augment_horizontal_flip": str(setting.flip).lower(),
            "loading.num_workers": 0,
            "previews.every": 0,
            "logging.progress": "false",
            "mixed_precision": "no",
        }
        flags = [f"--diffusion.model.{name}={value}" for name, value in size.items()]
        flags += [f"--trainer.{name}={value}" for name, value in trainer.items()]
        own = shlex.split(self.flags)
        named = {flag.partition("=")[0] for flag in own}
        flags = [flag for flag in flags if flag.partition("=")[0] not in named]
        command = [sys.executable, "-m", "diffusion_framework", "train", setting.folder]
        return [*command, *flags, *own]

    def sample(self, setting: Setting, seed: int, results: Path) -> None:
        return None


@dataclass(frozen=True)
class Peer:
    """Another library, with a learning rate or its own."""

    library: str
    rate: float | None

    @property
    def name(self) -> str:
        return f"{self.library}, {'defaults' if self.rate is None else f'rate {self.rate:g}'}"

    def train(self, setting: Setting, steps: int, seed: int, results: Path) -> list[str]:
        return self._command("train", setting, steps, seed, results)

    def sample(self, setting: Setting, seed: int, results: Path) -> list[str] | None:
        return self._command("sample", setting, 1, seed, results)

    def _command(
        self, what: str, setting: Setting, steps: int, seed: int, results: Path
    ) -> list[str]:
        task = {
            "folder": setting.folder,
            "image_size": setting.size,
            "channels": setting.channels,
            "steps": steps,
            "rate": self.rate,
            "seed": seed,
            "flip": setting.flip,
            "results": str(results),
            "samples": setting.samples,
            "calls": setting.calls,
        }
        script = ROOT / "scripts" / "benchmarks" / "quality_peers.py"
        return [sys.executable, str(script), what, self.library, json.dumps(task)]


def trained(one: Contestant, setting: Setting, seed: int, results: Path) -> dict[str, Any]:
    """Trains a contestant for the minutes, unless it is; returns its steps and CPU seconds."""
    note = results.with_name(f"{results.name}.json")
    if note.exists():
        return dict(json.loads(note.read_text()))
    trial, seconds = results.with_name(f"{results.name}-trial"), []
    for steps in (_SHORT, _LONG):
        shutil.rmtree(trial, ignore_errors=True)
        seconds.append(cpu_seconds(one.train(setting, steps, seed, trial)))
    shutil.rmtree(trial, ignore_errors=True)
    each = (seconds[1] - seconds[0]) / (_LONG - _SHORT)
    steps = max(1, round(60 * setting.minutes / each))
    shutil.rmtree(results, ignore_errors=True)
    took = cpu_seconds(one.train(setting, steps, seed, results))
    found = {"steps": steps, "cpu_seconds": round(took, 1), "seconds_of_a_step": round(each, 5)}
    note.write_text(json.dumps(found))
    return found


def measured(one: Contestant, setting: Setting, seed: int, results: Path) -> dict[str, Any]:
    """Returns the figures of the samples by number of network calls."""
    command = one.sample(setting, seed, results)
    if command is not None:
        cpu_seconds(command)
        runs = [str(results / f"{calls}.npz") for calls in setting.calls]
    else:
        runs = [str(results)]
    place = results / "quality"
    mode = {1: "L", 3: "RGB"}[setting.channels]
    options = {
        "data.folder": setting.held_out,
        "data.convert_image_to": mode,
        "training_data.folder": setting.folder,
        "training_data.convert_image_to": mode,
        "num_samples": setting.samples,
        "calls": ",".join(map(str, setting.calls)),
        "output": place,
        "seed": seed,
        "device": "cpu",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    program = [sys.executable, "-m", "diffusion_framework", "evaluate"]
    cpu_seconds([*program, *runs, "--quality", "--overwrite", *flags])
    rows = json.loads((place / "quality.json").read_text())["results"]
    kept = ("frechet", "kernel", "precision", "recall")
    return {row["name"].split()[-1]: {key: row[key] for key in kept} for row in rows}


def contestants(ours: list[str], rates: list[float], libraries: list[str]) -> Iterator[Contestant]:
    for one in ours:
        name, _, flags = one.partition("=")
        yield Ours(name, flags)
    for rate in rates:
        for library in libraries:
            yield Peer(library, rate or None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--held_out", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--flip", action="store_true", help="images may be flipped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ours", nargs="*", default=[], metavar="NAME=FLAGS")
    parser.add_argument("--peers", type=float, nargs="*", default=[], metavar="RATE", help="0: own")
    parser.add_argument("--libraries", nargs="+", choices=PEERS, default=[*PEERS])
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    flags = parser.parse_args()
    setting = Setting(
        flags.folder,
        flags.held_out,
        flags.size,
        flags.channels,
        flags.minutes,
        flags.samples,
        flags.calls,
        flags.flip,
        flags.work,
    )
    flags.work.mkdir(parents=True, exist_ok=True)
    for seed in flags.seeds:
        for one in contestants(flags.ours, flags.peers, flags.libraries):
            results: list[dict[str, Any]] = (
                json.loads(flags.file.read_text()) if flags.file.exists() else []
            )
            key = {"name": one.name, "seed": seed, "minutes": setting.minutes, "size": setting.size}
            if any(key.items() <= row.items() for row in results):
                continue
            place = flags.work / f"{one.name} {seed} {setting.minutes:g}".replace(" ", "-")
            row: dict[str, Any] = {**key, "flags": one.flags if isinstance(one, Ours) else None}
            row |= trained(one, setting, seed, place)
            row["quality"] = measured(one, setting, seed, place)
            with replacing(flags.file, "t") as file:
                json.dump([*results, row], file, indent=1)
            shown = {name: value["frechet"] for name, value in row["quality"].items()}
            print(f"{one.name}, seed {seed}: {row['steps']} steps, Frechet {shown}", flush=True)


if __name__ == "__main__":
    main()
