"""The command of scripts/sample.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from ..diffusion import GaussianDiffusion
from ..process.noise import sample_seeds
from ..samplers import Sampler
from ..storage.images import save_grid, save_picture
from .common import check_positive, device_named, run

DEFAULTS = {"sampler": {"class_path": "DDIM"}}


def sample(argv: Sequence[str]) -> None:
    """Runs scripts/sample.py; argv is the command line, without the program."""
    run(_sample, argv, "sample.py", defaults=DEFAULTS)


def _sample(
    checkpoint: str,
    *,
    num_samples: int = 25,
    batch_size: int = 64,
    sampler: Sampler | None = None,
    steps: int | str | None = None,
    spacing: Literal["time", "log_snr", "optimal"] = "time",
    seed: int = 0,
    clip_denoised: bool | Literal["dynamic"] = True,
    labels: list[int] | None = None,
    guidance: float = 1.0,
    weights: Literal["ema", "model"] = "ema",
    output: str = "samples",
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Samples images from a checkpoint.

    Args:
        checkpoint: Results folder of a run, or one of its checkpoints.
        num_samples: Number of images to sample.
        batch_size: Number of images sampled together; it does not change the images.
        sampler: Sampler; null selects the model's own.
        steps: Number of sampler steps, or 'ddim50' or '10,15,20'; null uses the model's timesteps.
        spacing: Quantity in which the sampler steps are evenly spaced.
        seed: Seed of the noise; the noise of image i depends only on the seed and i.
        clip_denoised: Whether estimates of the clean image are clipped to the data range: true,
            false, or dynamic (dynamic thresholding).
        labels: Class labels, such as 3,5, which the images take in turn; null uses all classes.
        guidance: Scale of classifier-free guidance; 1 switches it off.
        weights: Weights to use: ema (their moving average) or model (the last ones).
        output: Folder for the images.
        overwrite: Whether to replace existing images.
        device: Device to run on: auto, cpu, cuda, cuda:1, mps, ...
        progress: Whether to show progress bars.
        trust: Packages whose classes the files may name; their code then runs.
    """
    plan: Any = sampler
    chosen = None if plan is None else plan.build()
    check_positive(num_samples=num_samples, batch_size=batch_size)
    folder = _output_folder(output, overwrite)
    place = device_named(device)
    diffusion = GaussianDiffusion.from_pretrained(checkpoint, weights=weights, trust=trust)
    diffusion.to(place)
    classes = _classes_in_turn(labels, diffusion)
    options = {"sampler": chosen, "grid": diffusion.grid(steps, spacing), "guidance": guidance}
    options |= {"clip_denoised": clip_denoised, "show_progress": progress}
    shown: list[torch.Tensor] = []
    for first in tqdm(range(0, num_samples, batch_size), desc="batches", disable=not progress):
        indices = range(first, min(first + batch_size, num_samples))
        images = _images(diffusion, indices, seed, classes, options)
        shown.extend(images[: 100 - len(shown)])
        for index, image in zip(indices, images, strict=True):
            save_picture(image, folder / f"{index:05d}.png")
    save_grid(torch.stack(shown), folder / "grid.png", columns=len(classes) or None)
    print(f"done: {num_samples} images and grid.png in {folder}")


def _output_folder(output: str, overwrite: bool) -> Path:
    folder = Path(output)
    if not overwrite and any(folder.glob("*.png")):
        raise ValueError(
            f"--output: expected a folder without images, got {folder}. "
            "Fix: choose another folder, or add --overwrite."
        )
    return folder


def _images(
    diffusion: GaussianDiffusion,
    indices: range,
    seed: int,
    classes: list[int],
    options: dict[str, Any],
) -> torch.Tensor:
    """Samples the images of these indices, [batch, channels, height, width] on the CPU."""
    if classes:
        labels = [classes[i % len(classes)] for i in indices]
        options = {**options, "labels": torch.tensor(labels, device=diffusion.device)}
    return diffusion.sample(len(indices), seed=sample_seeds(seed, indices), **options).cpu()


def _classes_in_turn(asked: list[int] | None, diffusion: GaussianDiffusion) -> list[int]:
    """Returns the classes that samples take in turn: the given ones, or all of the network's.

    The list is empty for a network without classes.
    """
    classes = diffusion.num_classes
    if asked is None:
        return list(range(classes or 0))
    if classes is None:
        raise ValueError(
            "--labels: expected a network with classes, got one trained without labels. "
            "Fix: leave --labels out."
        )
    if wrong := [label for label in asked if not 0 <= label < classes]:
        raise ValueError(
            f"--labels: expected classes from 0 to {classes - 1}, got {wrong[0]}. "
            "Fix: choose others."
        )
    return asked
