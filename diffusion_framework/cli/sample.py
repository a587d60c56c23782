"""scripts/sample.py."""

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
    """Run scripts/sample.py; argv is the command line, without the program."""
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
    """Sample images from a checkpoint.

    Args:
        checkpoint: A results folder, or one checkpoint in it.
        num_samples: Number of images.
        batch_size: Images at a time; changes no image.
        sampler: The sampler; null takes the one that the run was trained with.
        steps: Steps of the sampler, or 'ddim50' or '10,15,20'; null: as trained.
        spacing: Quantity in which the steps are even.
        seed: Seed of the noise; image i is the same for the same seed.
        clip_denoised: Keep estimates of the images in range: true, false, or dynamic
            (thresholding).
        labels: Classes to take in turn, such as 3,5; null takes all.
        guidance: Scale of classifier-free guidance; 1 for none.
        weights: Averaged weights, or the last.
        output: Folder to write to.
        overwrite: Replace images of these names.
        device: auto, cpu, cuda, cuda:1, mps, ...
        progress: Show progress bars.
        trust: Packages whose classes the files may name, which runs their code.
    """
    plan: Any = sampler
    chosen = None if plan is None else plan.build()
    check_positive(num_samples=num_samples, batch_size=batch_size)
    folder = Path(output)
    if not overwrite and any(folder.glob("*.png")):
        raise ValueError(
            f"{folder} already holds images; choose another --output, or add --overwrite"
        )
    where = device_named(device)
    diffusion = GaussianDiffusion.from_pretrained(checkpoint, weights=weights, trust=trust).to(
        where
    )
    turn = _classes_in_turn(labels, diffusion)
    grid = diffusion.grid(steps, spacing)
    shown: list[torch.Tensor] = []
    for first in tqdm(range(0, num_samples, batch_size), desc="batches", disable=not progress):
        indices = range(first, min(first + batch_size, num_samples))
        condition: dict[str, Any] = {"guidance": guidance}
        if turn:
            condition["labels"] = torch.tensor([turn[i % len(turn)] for i in indices], device=where)
        images = diffusion.sample(
            len(indices),
            sampler=chosen,
            grid=grid,
            seed=sample_seeds(seed, indices),
            clip_denoised=clip_denoised,
            show_progress=progress,
            **condition,
        ).cpu()
        shown.extend(images[: 100 - len(shown)])
        for index, image in zip(indices, images, strict=True):
            save_picture(image, folder / f"{index:05d}.png")
    save_grid(torch.stack(shown), folder / "grid.png", columns=len(turn) or None)
    print(f"done: {num_samples} images and grid.png in {folder}")


def _classes_in_turn(asked: list[int] | None, diffusion: GaussianDiffusion) -> list[int]:
    """The classes that samples take in turn: those asked for, or else all of the network's.

    None without classes.
    """
    classes = diffusion.num_classes
    if asked is None:
        return list(range(classes or 0))
    if classes is None:
        raise ValueError(
            "--labels needs a network with classes; this one was trained without labels"
        )
    if wrong := [label for label in asked if not 0 <= label < classes]:
        raise ValueError(
            f"Expected --labels from 0 to {classes - 1}, got {wrong[0]}. Fix: name its classes."
        )
    return asked
