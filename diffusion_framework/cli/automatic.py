"""The recipe `auto`: settings that suit a folder of images, the device and the time.

The choices come from trials in scripts/benchmarks (see its README, "Quality at equal time").
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..data import ImageFolder
from ..data.images.headers import read_headers
from ..diffusion import GaussianDiffusion
from ..models import UNet
from ..parts.counting import counted

Tree = dict[str, Any]

MINUTES = 60.0  # without --trainer.minutes or --trainer.train_num_steps
_WIDTHS = (128, 96, 64, 48, 32, 24, 16)  # channels at full resolution
_SEEN = 64_000  # images that training must at least see; a wider network would see fewer
_OFTEN = 200  # epochs from which training augments the pictures
_RATE = 0.032  # learning rate x width
_BATCH = 32
_SELDOM = 50  # smallest number of steps between two previews, otherwise a tenth of the run
_OF_SEVERAL = 64  # width for several processes, which would measure different speeds


@dataclass(frozen=True)
class Facts:
    """What the choice depends on.

    Args:
        pictures: Number of images.
        side: Median of the shorter sides of the images in pixels.
        device: Type of the device: cpu, cuda or mps.
        minutes: Time for the steps.
        images: Number of images that training sees; None for as many as the time allows.
    """

    pictures: int
    side: int
    device: str
    minutes: float
    images: int | None = None


@dataclass(frozen=True)
class Speed:
    """Time of a training step for one image.

    Args:
        seconds: Seconds of the network that was measured.
        flops: Floating-point operations of its forward pass.
    """

    seconds: float
    flops: float

    def of(self, options: Mapping[str, Any]) -> float:
        """Returns the seconds of another UNet, in proportion to its operations."""
        return self.seconds * operations(options) / self.flops


def choose_size(facts: Facts) -> int:
    """Returns the side in pixels: what the time allows, and no more than the images have."""
    hours = facts.minutes / 60
    most = {"cpu": 32 if hours < 8 else 64}.get(facts.device, 64 if hours < 8 else 128)
    fits = [side for side in (32, 64, 128) if side <= min(most, facts.side)]
    return fits[-1] if fits else max(8, facts.side // 4 * 4)


def network(width: int, side: int, channels: int = 3) -> dict[str, Any]:
    """Returns the options of a UNet with a width for images of a side."""
    levels = {32: [1, 2, 4], 64: [1, 2, 3, 4], 128: [1, 1, 2, 3, 4]}
    mults = levels[min(s for s in levels if s >= min(side, 128))]
    blocks = 1 if width <= 32 else 2
    size = {"image_size": side, "channels": channels}
    return {"dim": width, "dim_mults": mults, "blocks": blocks, "self_condition": False, **size}


def choose_width(facts: Facts, speed: Speed, side: int, channels: int) -> int:
    """Returns the largest width with which training sees enough images in the time."""
    for width in _WIDTHS:
        each = speed.of(network(width, side, channels))
        if (facts.images or _SEEN) * each <= 60 * facts.minutes:
            return width
    return _WIDTHS[-1]


def operations(options: Mapping[str, Any]) -> float:
    """Returns the floating-point operations of a UNet's forward pass for one image."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        side = options["image_size"]
        UNet(**options)(torch.empty(1, options["channels"], side, side), torch.zeros(1))
    return float(counter.get_total_flops())


def measure_speed(device: str, side: int, channels: int) -> Speed:
    """Measures a training step of the narrowest network on the device, in about two seconds."""
    options = network(_WIDTHS[-1], side, channels)
    model = GaussianDiffusion(UNet(**options)).to(device)
    images = torch.rand(_BATCH, channels, side, side, device=device)
    for step in range(3):
        if step == 1:  # the first step allocates memory and chooses kernels
            began = time.perf_counter()
        model(images).backward()
        if device == "cuda":
            torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / 2 / _BATCH
    return Speed(seconds, operations(options))


def recipe(facts: Facts, options: Mapping[str, Any], epochs: float) -> Tree:
    """Returns the settings of the model and the Trainer for a network.

    Args:
        facts: What the choice depends on.
        options: Options of the UNet.
        epochs: Number of times that training sees each picture.
    """
    batch = min(_BATCH, max(4, 2 ** (facts.pictures.bit_length() - 1)))
    steps = epochs * facts.pictures / batch
    trainer = {
        "train_batch_size": batch,
        "save_and_sample_every": max(_SELDOM, int(float(f"{steps / 10:.1g}"))),
        "train_lr": float(f"{_RATE / options['dim']:.2g}"),
        "learning_rate": {"schedule": "cosine", "warmup_steps": 100},
        "ema_update_every": 1,
        "ema_decay": 0.9999,
    }
    if facts.device == "cpu":
        trainer["mixed_precision"] = "no"
    model = {**options, **({"augmentation": True} if epochs > _OFTEN else {})}
    diffusion = {
        "model": {"class_path": "UNet", "init_args": model},
        "train_prob_self_cond": 0.0,
    }
    return {
        "diffusion": {"class_path": "GaussianDiffusion", "init_args": diffusion},
        "trainer": trainer,
    }


EXAMPLE = recipe(Facts(1, 64, "cpu", MINUTES), network(_WIDTHS[-1], 64), 1000)
"""Settings of the kind that the recipe chooses."""


def fits(tree: Mapping[str, Any]) -> bool:
    """Returns whether the options are those of a UNet on a folder of images, the recipe's case."""
    data, diffusion = tree.get("data"), tree.get("diffusion")
    model = _inside(diffusion).get("model")
    kinds = {"ImageFolder": data, "GaussianDiffusion": diffusion, "UNet": model}
    return os.path.isdir(str(_inside(data).get("folder", ""))) and all(
        _name(node, kind).rpartition(".")[2].lower() == kind.lower() for kind, node in kinds.items()
    )


def automatic(tree: Mapping[str, Any]) -> tuple[Tree, list[str]]:
    """Returns settings that lie below the flags, and what was chosen, in lines.

    Flags that determine others, such as the size of the images, are taken into account.

    Args:
        tree: Options of the flags and configs.
    """
    model, trainer = _inside(_inside(tree.get("diffusion")).get("model")), tree.get("trainer", {})
    facts = _facts(_inside(tree["data"]), trainer)
    side = _whole(model.get("image_size"), choose_size(facts))
    channels = _whole(model.get("channels"), 3)
    pictures = counted(facts.pictures, "picture")
    lines = [f"auto        {pictures}, the median {facts.side} pixels wide or high"]
    width, seen = _whole(model.get("dim"), 0), ""
    if not width and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        width = _OF_SEVERAL
    images = float(facts.images or _SEEN)
    if not width:
        speed = measure_speed(facts.device, side, channels)
        width = choose_width(facts, speed, side, channels)
        each = speed.of(network(width, side, channels))
        images = facts.images or 60 * facts.minutes / each
        seen = f", which sees some {float(f'{images:.2g}'):,.0f} images"
    epochs = images / facts.pictures
    chosen = recipe(facts, network(width, side, channels), epochs)
    time = "" if facts.images else f" in {facts.minutes:g} minutes"
    lines += [f"{side} x {side} pixels by a UNet of width {width}{seen}{time}"]
    if epochs > _OFTEN:
        lines += [f"augmentation, as each picture is seen {float(f'{epochs:.1g}'):,.0f} times"]
    if not facts.images:
        chosen["trainer"]["minutes"] = facts.minutes
    lines += ["--print_config shows all settings, --trainer.minutes sets the time"]
    return chosen, [lines[0], *(f"{'':12}{line}" for line in lines[1:])]


def _facts(data: Mapping[str, Any], trainer: Mapping[str, Any]) -> Facts:
    folder = ImageFolder(str(data["folder"]), 8)
    sides = sorted(min(size) for size in read_headers(folder.folder, folder.paths).sizes) or [64]
    cuda = torch.cuda.is_available() and not os.environ.get("ACCELERATE_USE_CPU")
    device = "cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        minutes = float(trainer.get("minutes", MINUTES))
    except ValueError:
        minutes = MINUTES  # the Trainer says what is wrong
    steps = 0 if "minutes" in trainer else _whole(trainer.get("train_num_steps"), 0)
    images = steps * _whole(trainer.get("train_batch_size"), _BATCH)
    return Facts(len(folder), sides[len(sides) // 2], device, minutes, images or None)


def _inside(node: Any) -> Mapping[str, Any]:
    """Returns the options of a part, whether or not its class is named."""
    node = node if isinstance(node, Mapping) else {}
    return node.get("init_args", node)


def _name(node: Any, default: str) -> str:
    """Returns the name of a part's class."""
    if isinstance(node, str):
        return node
    return str(node.get("class_path", default)) if isinstance(node, Mapping) else default


def _whole(value: Any, default: int) -> int:
    """Returns a whole number, or the default for anything else, which others refuse."""
    return int(value) if str(value).isdecimal() else default
