"""scripts/evaluate.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from ..data import ImageDataset
from ..diffusion import GaussianDiffusion
from ..evaluation import (
    BoundTerms,
    bits_per_dim,
    check_plot,
    flow_bits_per_dim,
    mean_and_error,
    plot_bounds,
    write_bound,
)
from ..process.noise import sample_seeds
from ..process.posterior import Variance
from .common import check_positive, device_named, run

DEFAULTS = {"data": {"class_path": "ImageFolder"}}
GIVEN = {"data": dict.fromkeys(("image_size", "channels"), "the network.")}


def evaluate(argv: Sequence[str]) -> None:
    """Run scripts/evaluate.py; argv is the command line, without the program."""
    run(_evaluate, argv, "evaluate.py", defaults=DEFAULTS, given=GIVEN)


def _evaluate(
    *runs: str,
    data: ImageDataset,
    likelihood: bool = False,
    num_images: int = 1000,
    batch_size: int = 64,
    steps: int | str | None = None,
    variance: Variance | None = None,
    tolerance: float = 1e-4,
    seed: int = 0,
    weights: Literal["ema", "model"] = "ema",
    output: str = "likelihood",
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Measure trained models on images that they have not seen.

    Args:
        runs: Results folders, or one checkpoint of each.
        data: Images to measure on.
        likelihood: Measure bits per dimension, by the bound and by the flow.
        num_images: Images to take, from the first.
        batch_size: Images at a time.
        steps: Steps of the bound, or 'ddim50' or '10,15,20'; null: as trained.
        variance: Variance of the bound's reverse steps; null: as in training.
        tolerance: Largest error of a step of the flow.
        seed: Seed of the noise.
        weights: Averaged weights, or the last.
        output: Folder of the tables and the plot.
        overwrite: Replace tables of these names.
        device: auto, cpu, cuda, cuda:1, mps, ...
        progress: Show progress bars.
        trust: Packages whose classes the files may name, which runs their code.
    """
    if not runs:
        raise ValueError("RUNS is missing; give results folders, or one checkpoint of each")
    if not likelihood:
        raise ValueError("nothing to evaluate; add --likelihood")
    check_positive(num_images=num_images, batch_size=batch_size)
    names = [Path(name).resolve().name for name in runs]
    folder = Path(output)
    files = [folder / f"{name}.csv" for name in names]
    if len(set(names)) < len(names):
        raise ValueError(
            f"runs of different names are needed, as each has a table; got {', '.join(names)}"
        )
    if not overwrite and (there := [file for file in files if file.exists()]):
        raise ValueError(f"{there[0]} exists already; choose another --output, or add --overwrite")
    check_plot()
    place = device_named(device)
    models = [
        GaussianDiffusion.from_pretrained(path, weights=weights, trust=trust).to(place)
        for path in runs
    ]
    bounds, lines = {}, []
    for name, file, diffusion in zip(names, files, models, strict=True):
        bounds[name], flow = _likelihood(
            diffusion,
            data,
            name,
            num_images,
            batch_size,
            progress,
            seed,
            tolerance,
            steps=steps,
            variance=variance,
        )
        write_bound(bounds[name], file)
        reconstruction = bounds[name].steps[:, -1].mean().item()
        (bound, bound_error), (mean, error) = (
            mean_and_error(bounds[name].total),
            mean_and_error(flow),
        )
        lines.append(
            f"{name:24} {bound:8.4f} +- {bound_error:.4f} {bounds[name].prior.mean().item():10.2g} "
            f"{reconstruction:15.4f} {mean:11.4f} +- {error:.4f}"
        )
    plot_bounds(bounds, folder / "bounds.png")
    print(
        f"{'bits per dimension':24} {'bound':>8} {'':9} {'prior':>10} {'reconstruction':>15} "
        f"{'flow':>11}"
    )
    print(*lines, sep="\n")
    print(f"done: the bound's terms as tables, and bounds.png, in {folder}")


def _likelihood(
    diffusion: GaussianDiffusion,
    data_plan: Any,
    name: str,
    num_images: int,
    batch_size: int,
    progress: bool,
    seed: int,
    tolerance: float,
    **bound_options: Any,
) -> tuple[BoundTerms, torch.Tensor]:
    """The bound on the first images of the data, and [images] bits per dimension by the flow."""
    channels, *size = diffusion.sample_shape
    data = data_plan.build(image_size=tuple(size), channels=channels)
    if data.bits != 8:
        raise ValueError(
            f"Expected 8-bit images, whose likelihood is counted, got {data.bits} bits. Fix: "
            f"--data.bits 8."
        )
    has_classes = diffusion.num_classes is not None
    if has_classes and not data.class_names:
        raise ValueError(
            "this network has classes, and the images come without; add --data.labels true"
        )
    bounds, flows = [], []
    count = min(num_images, len(data))
    for first in tqdm(range(0, count, batch_size), desc=name, disable=not progress):
        indices = range(first, min(first + batch_size, count))
        pairs = [
            item if isinstance(item, tuple) else (item, 0) for item in (data[i] for i in indices)
        ]
        images = torch.stack([image for image, _ in pairs]).to(diffusion.device).float() / 255
        labels = torch.tensor([label for _, label in pairs], device=diffusion.device)
        condition: dict[str, Any] = {"labels": labels} if has_classes else {}
        seeds = sample_seeds(seed, indices)
        bounds.append(bits_per_dim(diffusion, images, seed=seeds, **bound_options, **condition))
        flows.append(
            flow_bits_per_dim(diffusion, images, tolerance=tolerance, seed=seeds, **condition)
        )
    return BoundTerms.cat(bounds), torch.cat(flows)
