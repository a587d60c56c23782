"""Measures training speed in comparison with denoising-diffusion-pytorch and diffusers.

    python scripts/benchmarks/benchmark_training.py FOLDER

Three training loops run on the images of FOLDER with equal batch and image sizes: the Trainer of
denoising-diffusion-pytorch, a copy of diffusers' unconditional training example, and our Trainer.
Our networks have the same levels and, within 5 %, the same number of parameters as each of theirs.
Each loop runs in a separate process with its default settings, except for the stated precision. The
processes take turns: one takes a few steps while the others are stopped (SIGSTOP).
Self-conditioning, a default only of ours, is off. The script prints:

- images per second, the median of the turns;
- the seconds from the start of Python to the end of the first step;
- peak memory, of the GPU if one exists;
- the network's FLOPs per second as a share of a convolution's, in the same run and precision;
- images per second of the loaders alone, in the first and later epochs of FOLDER and PHOTOS;
- the time of a checkpoint as a share of 1000 steps;
- the import time of `diffusion_framework` beyond that of `torch`;
- the time of `sample.py --help`.

`pip install -e '.[benchmark]'` installs the other libraries. The default --width is smaller than in
their examples to suit a CPU, and takes 20 minutes on two cores. On a GPU use --width 128 --batch 64
--turn 50. Writes training.json and training.png to --output; benchmark_training_cpu.json in this
folder is one result. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import torch
from contestants import CONTESTANTS, LOADERS, SUFFIXES, Task, command
from torch.utils.flop_counter import FlopCounterMode

from diffusion_framework.training.precision import choose_precision

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Run:
    """A contestant in its own process group, stopped except during its turns."""

    def __init__(self, name: str, task: Task, folder: Path) -> None:
        self.name, self.began = name, time.monotonic()
        self.task = replace(task, report=str(folder / f"{name}.txt"), results=str(folder / name))
        Path(self.task.report).touch()
        self.errors = folder / f"{name}.err"
        self.process = subprocess.Popen(
            command(name, self.task),
            stdout=subprocess.DEVNULL,
            stderr=self.errors.open("w"),
            start_new_session=True,
        )
        self.seconds: list[float] = []  # per step, one value for each turn

    def start(self) -> None:
        """Waits for the first step, then stops the process."""
        self.first_step = self._wait(1)[0][1] - self.began
        self._signal(signal.SIGSTOP)

    def turn(self) -> None:
        """Times some steps; the first few, one of which was interrupted, are not counted."""
        self._signal(signal.SIGCONT)
        (_, before, _), (_, after, _) = self._wait(len(self._lines()) + 2)[-2:]
        self._signal(signal.SIGSTOP)
        self.seconds.append((after - before) / self.task.every)

    def end(self) -> dict[str, float]:
        """Kills the process and returns its measurements."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        memory = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
        peak = self._lines()[-1][2] or memory
        self._signal(signal.SIGKILL)
        self.process.wait()
        rate = self.task.batch / statistics.median(self.seconds)
        spread = [self.task.batch / seconds for seconds in sorted(self.seconds)]
        return {
            "images_per_second": rate,
            "turns": spread,
            "first_step": self.first_step,
            "peak_memory": peak,
        }

    def _lines(self) -> list[tuple[int, float, int]]:
        lines = Path(self.task.report).read_text().split("\n")[:-1]
        return [
            (int(steps), float(seconds), int(peak))
            for steps, seconds, peak in map(str.split, lines)
        ]

    def _wait(self, lines: int) -> list[tuple[int, float, int]]:
        while len(found := self._lines()) < lines + 1:  # the first line precedes the first step
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended:\n{self.errors.read_text()}")
            time.sleep(0.02)
        return found[1:]

    def _signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)


def take_turns(names: list[str], task: Task, turns: int) -> dict[str, dict[str, Any]]:
    """Returns the measurements of these contestants by name."""
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        try:
            for name in names:
                say(f"{name} ...")
                runs.append(Run(name, task, Path(folder)))
                runs[-1].start()
            for turn in range(turns):
                for run in runs:
                    run.turn()
                    say(
                        f"turn {turn + 1} of {turns}: {run.name}, "
                        f"{task.batch / run.seconds[-1]:.3g} images a second"
                    )
            return {run.name: run.end() | network_figures(run.name, task) for run in runs}
        finally:
            for run in runs:
                if run.process.poll() is None:
                    run._signal(signal.SIGKILL)


def network_figures(name: str, task: Task) -> dict[str, Any]:
    """Returns precision, parameters, and FLOPs per image of a forward and backward pass."""
    _, make, precision = CONTESTANTS[name]
    network = make(task).to(DEVICE)
    x, t = (
        torch.randn(1, 3, task.image_size, task.image_size, device=DEVICE),
        torch.rand(1, device=DEVICE),
    )
    with FlopCounterMode(display=False) as counter:
        out = network(x, t)
        getattr(out, "sample", out).sum().backward()
    parameters = sum(p.numel() for p in network.parameters())
    precision = choose_precision(precision, network)
    return {"precision": precision, "parameters": parameters, "flops": counter.get_total_flops()}


def convolution_rate(dtype: torch.dtype, task: Task) -> float:
    """Returns the highest FLOPs per second of a 3 x 3 convolution, forward and backward."""
    best, channels = 0.0, 4 * task.width
    for layout in (torch.contiguous_format, torch.channels_last):
        convolution = torch.nn.Conv2d(channels, channels, 3, padding=1, device=DEVICE, dtype=dtype)
        convolution = convolution.to(memory_format=layout)
        side = max(task.image_size // 4, 8)
        x = torch.randn(task.batch, channels, side, side, device=DEVICE, dtype=dtype).to(
            memory_format=layout
        )
        x.requires_grad_()
        flops = 3 * 2 * 9 * channels**2 * x.shape[0] * side**2

        def both(convolution: torch.nn.Module = convolution, x: torch.Tensor = x) -> None:
            out = convolution(x)
            out.backward(out.detach())
            if DEVICE == "cuda":
                torch.cuda.synchronize()

        both()
        best = max(best, flops / min(seconds(both) for _ in range(10)))
    return best


def loader_rates(folder: str, task: Task, epochs: int = 3) -> dict[str, dict[str, float]]:
    """Returns images per second of each loader, in the first epoch and in the best later epoch."""
    task = replace(task, folder=folder)
    count = sum(path.suffix.lower() in SUFFIXES for path in Path(folder).rglob("*"))
    task = replace(task, batch=min(task.batch, count))
    for package in (
        "accelerate",
        "diffusion_framework.training",
        "denoising_diffusion_pytorch",
        "torchvision",
    ):
        importlib.import_module(package)  # not part of the measured time
    rates: dict[str, dict[str, float]] = {}
    for name, loader in LOADERS.items():
        say(f"loader of {name}, {count} images of {folder} ...")
        batches, taken = None, []
        for _ in range(epochs):
            began, images = time.perf_counter(), 0
            batches = batches or loader(task)
            while images < count:
                images += next(batches)
            taken.append(images / (time.perf_counter() - began))
        rates[name] = {"first_epoch": taken[0], "later_epochs": max(taken[1:])}
        del batches
    return rates


def checkpoint_seconds(task: Task) -> float:
    """Returns the median time of writing a checkpoint of the larger of our networks."""
    from diffusion_framework import GaussianDiffusion, Trainer
    from diffusion_framework.data import Digits
    from diffusion_framework.storage.writing import write_checkpoint

    network = CONTESTANTS["ours, as lucidrains"][1](task)
    with tempfile.TemporaryDirectory() as folder:
        data = Digits(task.image_size, 3)
        trainer = Trainer(
            GaussianDiffusion(network), data, results_folder=folder, train_batch_size=1
        )
        for parameter in trainer.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        trainer.state.advance(skip_step=None)  # creates the moments of Adam

        def save() -> None:
            tensors, numbers = trainer.state.tensors(), trainer.state.numbers()
            write_checkpoint(Path(folder), trainer.state.step, tensors, trainer.config, numbers, 1)
            trainer.state.step += 1

        return statistics.median(seconds(save) for _ in range(3))


def start_seconds() -> dict[str, float]:
    """Returns the start-up time of Python with some imports, the median of seven turns."""
    commands = {
        "import torch": ["-c", "import torch"],
        "import diffusion_framework": ["-c", "import torch, diffusion_framework"],
        "sample.py --help": [str(ROOT / "scripts/sample.py"), "--help"],
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(7):
        for name, arguments in commands.items():
            run = [sys.executable, *arguments]
            taken[name].append(
                seconds(
                    lambda run=run: subprocess.run(
                        run, check=True, capture_output=True, env=environment
                    )
                )
            )
    return {name: statistics.median(values) for name, values in taken.items()}


def seconds(call: Callable[[], object]) -> float:
    """Returns the duration of a call in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(found: dict[str, Any]) -> None:
    """Prints the measurements as tables."""
    print(f"\n{'':32s} images/s   first step   memory   parameters   of the convolutions' rate")
    for name, run in found["training"].items():
        print(
            f"{name:32s} {run['images_per_second']:8.2f} {run['first_step']:10.1f} s "
            f"{run['peak_memory'] / 1e9:6.1f} GB"
            f"{run['parameters'] / 1e6:11.1f} M {run['share_of_ceiling']:15.0%}"
        )
    print("\nratios of images/s")
    for name, ratio in found["ratios"].items():
        print(f"{name:70s} {ratio:.2f}")
    for folder, rates in found["loaders"].items():
        print(f"\n{folder}: images/s{'':20s} first epoch   later epochs")
        for name, rate in rates.items():
            print(f"{name:40s} {rate['first_epoch']:10.0f} {rate['later_epochs']:14.0f}")
    print(
        f"\na checkpoint takes {found['checkpoint_seconds']:.2f} s, "
        f"{found['checkpoint_share']:.2%} of 1000 steps"
    )
    for name, value in found["start_seconds"].items():
        print(f"{name:30s} {value:.2f} s")


def plot(found: dict[str, Any], path: Path) -> None:
    """Draws images per second as bars."""
    names = list(found["training"])
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(names) + 1.5), layout="constrained")
    rates = [found["training"][name]["images_per_second"] for name in names]
    colors = ["tab:blue" if name.startswith("ours") else "tab:gray" for name in names]
    bars = axes.barh(names, rates, color=colors)
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.set_xlabel("images per second in training")
    axes.set_title(
        f"{found['image_size']} x {found['image_size']} pixels, batch {found['batch']}, "
        f"{found['device']}"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def ratios(training: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Returns our speed relative to the others, with the defaults and at equal precision."""
    pairs = []
    for other in ("lucidrains", "diffusers"):
        pairs += [
            (f"ours, as {other}", other),
            (f"ours, as {other}, float32", other),
            (f"ours, as {other}", f"{other}, bf16"),
        ]
    return {
        f"({a}) : ({b})": training[a]["images_per_second"] / training[b]["images_per_second"]
        for a, b in pairs
        if a in training and b in training
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder of images to train on")
    parser.add_argument("--photos", help="another folder of images, for the loaders only")
    parser.add_argument("--output", type=Path, default=Path("results/benchmark_training"))
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--width", type=int, default=64, help="channels of the other networks at full resolution"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--turn", type=int, default=2, help="number of counted steps in a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    for folder in filter(None, (arguments.folder, arguments.photos)):
        if not any(path.suffix.lower() in SUFFIXES for path in Path(folder).rglob("*")):
            parser.error(
                f"Expected images in {folder}, got none. Fix: add {', '.join(SUFFIXES)} files."
            )
    for package in ("diffusers", "denoising_diffusion_pytorch"):
        if importlib.util.find_spec(package) is None:
            parser.error(f"Expected {package}, got none. Fix: pip install -e '.[benchmark]'.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    task = Task(
        os.path.abspath(arguments.folder),
        arguments.image_size,
        arguments.batch,
        arguments.width,
        "",
        arguments.turn,
        "",
        arguments.threads,
    )
    ceilings = {
        "no": convolution_rate(torch.float32, task),
        "bf16": convolution_rate(torch.bfloat16, task),
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the contestants
    training: dict[str, dict[str, Any]] = {}
    for other in ("lucidrains", "diffusers"):  # one after the other, to save memory
        training |= take_turns(
            [name for name in CONTESTANTS if other in name], task, arguments.turns
        )
    for run in training.values():
        run["share_of_ceiling"] = (
            run["images_per_second"] * run["flops"] / ceilings[run["precision"]]
        )
    checkpoint = checkpoint_seconds(task)
    step = arguments.batch / training["ours, as lucidrains"]["images_per_second"]
    folders = [arguments.folder, *([arguments.photos] if arguments.photos else [])]
    packages = ("torch", "diffusers", "denoising-diffusion-pytorch", "accelerate")
    found = {
        "device": torch.cuda.get_device_name()
        if DEVICE == "cuda"
        else f"CPU, {arguments.threads} threads",
        "date": datetime.date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in packages},
        },
        "image_size": arguments.image_size,
        "batch": arguments.batch,
        "convolution_flops": ceilings,
        "training": training,
        "ratios": ratios(training),
        "loaders": {
            Path(folder).name: loader_rates(os.path.abspath(folder), task) for folder in folders
        },
        "checkpoint_seconds": checkpoint,
        "checkpoint_share": checkpoint / (1000 * step),
        "start_seconds": start_seconds(),
    }
    (arguments.output / "training.json").write_text(json.dumps(found, indent=2))
    plot(found, arguments.output / "training.png")
    show(found)


if __name__ == "__main__":
    main()
