"""Training runs with a fault; each function is one process of a run, for `soak.start`."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import soak
import torch
from torch.utils.data import Dataset

from diffusion_framework.spaces import DataSpace
from diffusion_framework.training import Callback, Run


class SlowPictures(Dataset):
    """64 images of noise, each drawn in `seconds`; image `bad` is NaN."""

    def __init__(self, seconds: float = 0.0, bad: int = -1) -> None:
        self.pictures = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        self.seconds, self.bad = seconds, bad

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.pictures[index] * (float("nan") if index == self.bad else 1)


class FaultyOnRank(SlowPictures):
    """Images; in the process of one rank, something happens at the third batch of four."""

    def __init__(self, kind: str, rank: int, file: Path) -> None:
        super().__init__()
        self.kind, self.rank, self.file, self.drawn = kind, rank, file, 0

    def __getitem__(self, index: int) -> torch.Tensor:
        self.drawn += 1
        if self.drawn == 12 and os.environ["RANK"] == str(self.rank):
            if self.kind == "error":
                raise ValueError(f"{index}.png is broken")
            if self.kind == "hang":
                self.file.touch()  # tells the test
                threading.Event().wait()
            if self.kind == "invalid":
                self.pictures[index] += 9
            else:
                os.kill(os.getpid(), getattr(signal, self.kind))
        return super().__getitem__(index)


class Unchecked(DataSpace):
    """Space without checks, as every space is on a GPU."""

    def encode(self, data: torch.Tensor, condition) -> torch.Tensor:
        return data * 2 - 1

    def decode(self, x0: torch.Tensor, condition) -> torch.Tensor:
        return (x0 + 1) / 2


def at_file_operation(number: int, action, path: str = "checkpoints") -> None:
    """Calls `action()` before operation `number`, from 0, on a file or folder of this path.

    Args:
        number: Index of the operation, counted from now.
        action: Function to call.
        path: Text that the path contains.
    """
    count = [0]

    def hook(event: str, arguments: tuple) -> None:
        if event in (
            "open",
            "os.rename",
            "os.mkdir",
            "os.remove",
            "os.rmdir",
            "shutil.rmtree",
            "os.scandir",
        ) and any(path in os.fspath(a) for a in arguments if isinstance(a, str | os.PathLike)):
            count[0] += 1
            if count[0] == number + 1:
                action()

    sys.addaudithook(hook)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_in_save(results: str, rank: int, processes: int, port: int, options: dict) -> None:
    from runs import write

    at_file_operation(options["operation"], die)
    write(results, 2, keep=1)


def killed_while_drawing(results: str, rank: int, processes: int, port: int, options: dict) -> None:
    from diffusion_framework.storage.images import save_picture

    at_file_operation(options["operation"], die, path=os.path.basename(results))
    for index in range(3):
        save_picture(torch.rand(3, 64, 64), Path(results) / f"{index:05d}.png")


def full_disk(results: str, rank: int, processes: int, port: int, options: dict) -> None:
    if rank == 0:  # no file above 40 kB: the log fits, weights do not
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    soak.train(results, rank, processes, port, options)


def interrupted_twice_in_save(
    results: str, rank: int, processes: int, port: int, options: dict
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    at_file_operation(0, twice, "00000008/config.yaml")
    soak.train(results, rank, processes, port, options)


def in_own_group(results: str, rank: int, processes: int, port: int, options: dict) -> None:
    os.setsid()
    soak.train(results, rank, processes, port, options)


def killed_in_third_save(results: str, rank: int, processes: int, port: int, options: dict) -> None:
    at_file_operation(0, die, "00000012/config.yaml")
    soak.train(results, rank, processes, port, options)


def with_an_unused_layer(results: str, rank: int, processes: int, port: int, options: dict) -> None:
    import diffusion_framework

    class Unused(diffusion_framework.UNet):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            self.spare = torch.nn.Linear(2, 2)

    diffusion_framework.UNet = Unused
    soak.train(results, rank, processes, port, options)


class OnOneProcess(Callback):
    """Asks for the end of the run, or fails, after a step of the second process."""

    def __init__(self, step: int, fails: bool) -> None:
        self.step, self.fails = step, fails

    def on_step(self, run: Run) -> None:
        if run.step == self.step and not run.is_main_process:
            if self.fails:
                raise RuntimeError("mine")
            run.stop()
