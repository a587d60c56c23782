"""Measures enlarged pictures of a super-resolution run beside nearest and bicubic interpolation.

    python scripts/benchmarks/evaluate_super_resolution.py RUN FILE.json [--picture FILE.png]

RUN is a run of configs/super_resolution.yaml with --validation 0.2. Its held-out pictures are
enlarged from their copies. For each method, FILE.json gets the mean PSNR in dB and the Frechet
distance between enlarged and true pictures, with a standard error, in features that are trained on
the training pictures. A method whose figures the file already holds is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import GaussianDiffusion
from diffusion_framework.data import ImageFolder, TrainingDataset
from diffusion_framework.data.held_out import hold_out
from diffusion_framework.evaluation.features import Own, features_of
from diffusion_framework.evaluation.quality import bootstrap_frechet
from diffusion_framework.process.noise import sample_seeds
from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.storage.config import from_config
from diffusion_framework.storage.images import save_picture
from diffusion_framework.storage.labelled import labelled_grid
from diffusion_framework.storage.replacing import replacing
from diffusion_framework.storage.run_paths import absolute_from_run

Enlarge = Callable[[Tensor], Tensor]
"""Function from uint8 copies [n, channels, h, w] to uint8 pictures [n, channels, height, width]."""


def interpolation(size: tuple[int, int], filter: Image.Resampling) -> Enlarge:
    """Returns a function that enlarges by a filter of Pillow."""

    def enlarge(copies: Tensor) -> Tensor:
        pictures = [Image.fromarray(copy.permute(1, 2, 0).numpy()) for copy in copies]
        large = [np.asarray(picture.resize(size[::-1], filter)) for picture in pictures]
        return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2)

    return enlarge


def sampling(run: str, calls: int, level: float, batch: int = 32) -> Enlarge:
    """Returns a function that samples from a run, with noise of a level on the copies."""
    diffusion = GaussianDiffusion.from_pretrained(run)
    diffusion.conditions["image"].sampling_noise = level

    def enlarge(copies: Tensor) -> Tensor:
        found = []
        for first in range(0, len(copies), batch):
            part = copies[first : first + batch]
            seeds = sample_seeds(0, range(first, first + len(part)))
            options = {"seed": seeds, "calls": calls, "show_progress": False}
            found.append(diffusion.sample(len(part), image=part, **options))
        return (torch.cat(found) * 255).round().clamp(0, 255).to(torch.uint8)

    return enlarge


def psnr(pictures: Tensor, truth: Tensor) -> float:
    """Returns the mean over pictures of the peak signal-to-noise ratio, in dB."""
    error = (pictures.double() - truth.double()).square().flatten(1).mean(1)
    return float((10 * torch.log10(255**2 / error.clamp(min=1e-9))).mean())


def held_out(run: str) -> tuple[TrainingDataset, TrainingDataset]:
    """Returns the training and the held-out pictures of a run."""
    config = Checkpoint.find(run).config
    data = from_config(absolute_from_run(config["data"], Path(run)), ImageFolder)
    return hold_out(data, config["validation"], config["trainer"]["seed"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="results folder of the run")
    parser.add_argument("output", type=Path, help="JSON file of the figures")
    parser.add_argument("--calls", type=int, default=10, help="network calls for a picture")
    parser.add_argument("--levels", type=float, nargs="*", default=[0.0], help="noise on copies")
    parser.add_argument("--images", type=int, default=10_000, help="most held-out pictures")
    parser.add_argument("--feature_steps", type=int, default=300, help="steps of the features")
    parser.add_argument("--picture", type=Path, help="PNG file: copy, methods and truth in a row")
    args = parser.parse_args()
    training, held = held_out(args.run)
    truth, told = held.take(np.arange(min(args.images, len(held))))
    size, copies = truth.shape[2:], told["image"]
    methods: dict[str, Callable[[], Enlarge]] = {
        "nearest": lambda: interpolation(size, Image.Resampling.NEAREST),
        "bicubic": lambda: interpolation(size, Image.Resampling.BICUBIC),
        **{
            f"{args.calls} calls, noise {level:g}": lambda level=level: sampling(
                args.run, args.calls, level
            )
            for level in args.levels
        },
    }
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}
    network = Own(steps=args.feature_steps).network(training, torch.device("cpu"))
    reference = features_of(network, truth.split(64), total=-(-len(truth) // 64))
    shown = []
    for name, method in methods.items():
        if name in rows and not args.picture:
            continue
        large = method()(copies if name not in rows else copies[:8])
        shown.append(large[:8].float() / 255)
        if name not in rows:
            features = features_of(network, large.split(64), total=-(-len(large) // 64))
            distance = bootstrap_frechet(features, reference)
            rows[name] = {"pictures": len(large), "psnr": psnr(large, truth)}
            rows[name] |= {"frechet": distance.value, "error": distance.error}
            with replacing(args.output, "t") as file:
                file.write(json.dumps(rows, indent=2) + "\n")
        print(f"{name:24} {rows[name]}", flush=True)
    if args.picture:
        first, *others = shown
        picture = labelled_grid(truth[:8].float() / 255, None, (first, *others), columns=1)
        save_picture(picture, args.picture)


if __name__ == "__main__":
    main()
