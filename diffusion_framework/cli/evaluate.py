"""The command of scripts/evaluate.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
GIVEN = {"data": dict.fromkeys(("image_size", "channels"), "the network")}


def evaluate(argv: Sequence[str]) -> None:
    """Runs scripts/evaluate.py; argv is the command line, without the program."""
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
    """Measures trained models on held-out images.

    Args:
        runs: Results folders of runs, or one checkpoint of each run.
        data: Dataset of images to measure on.
        likelihood: Whether to measure bits per dimension, by the variational bound and by the
            probability flow ODE.
        num_images: Number of images to measure on, the first of the dataset.
        batch_size: Number of images measured together.
        steps: Number of steps of the variational bound, or 'ddim50' or '10,15,20'; null uses the
            model's timesteps.
        variance: Variance of the reverse steps in the variational bound; null is that of training.
        tolerance: Error tolerance of each step of the ODE solver.
        seed: Seed of the noise.
        weights: Weights to use: ema (their moving average) or model (the last ones).
        output: Folder for the tables and the plot.
        overwrite: Whether to replace existing tables.
        device: Device to run on: auto, cpu, cuda, cuda:1, mps, ...
        progress: Whether to show progress bars.
        trust: Packages whose classes the files may name; their code then runs.
    """
    if not runs:
        raise ValueError(
            "RUNS: expected results folders, got none. Fix: give the folders of trained runs."
        )
    if not likelihood:
        raise ValueError("Expected a quantity to measure, got none. Fix: add --likelihood.")
    check_positive(num_images=num_images, batch_size=batch_size)
    folder = Path(output)
    names = _table_names(runs, folder, overwrite)
    check_plot()
    place = device_named(device)
    models = {
        name: GaussianDiffusion.from_pretrained(path, weights=weights, trust=trust).to(place)
        for name, path in zip(names, runs, strict=True)
    }
    options = {"seed": seed, "tolerance": tolerance, "steps": steps, "variance": variance}
    _measure_likelihood(models, folder, data, num_images, batch_size, progress, **options)


def _table_names(runs: Sequence[str], folder: Path, overwrite: bool) -> list[str]:
    """Returns the name of each run's table, without suffix.

    Raises:
        ValueError: If two names are equal, or a table exists and may not be replaced.
    """
    names = [Path(run).resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(
            "RUNS: expected folders of different names, as each names a table, got "
            f"{', '.join(names)}. Fix: rename one."
        )
    existing = [file for name in names if (file := folder / f"{name}.csv").exists()]
    if existing and not overwrite:
        raise ValueError(
            f"--output: expected a folder without these tables, got {existing[0]}. "
            "Fix: choose another folder, or add --overwrite."
        )
    return names


def _measure_likelihood(
    models: Mapping[str, GaussianDiffusion],
    folder: Path,
    data: Any,
    num_images: int,
    batch_size: int,
    progress: bool,
    **options: Any,
) -> None:
    """Measures models by name; prints and writes the results."""
    bounds, rows = {}, []
    for name, diffusion in models.items():
        bounds[name], flow = _likelihood(
            diffusion, data, name, num_images, batch_size, progress, **options
        )
        write_bound(bounds[name], folder / f"{name}.csv")
        rows.append(_row(name, bounds[name], flow))
    plot_bounds(bounds, folder / "bounds.png")
    print(
        f"{'bits per dimension':24} {'bound':>8} {'':9} {'prior':>10} {'reconstruction':>15} "
        f"{'flow':>11}"
    )
    print(*rows, sep="\n")
    print(f"done: the bound's terms as tables, and bounds.png, in {folder}")


def _row(name: str, bound: BoundTerms, flow: torch.Tensor) -> str:
    """Returns the printed row of a model: means and standard errors in bits per dimension."""
    total, total_error = mean_and_error(bound.total)
    mean, error = mean_and_error(flow)
    prior, reconstruction = bound.prior.mean().item(), bound.steps[:, -1].mean().item()
    return (
        f"{name:24} {total:8.4f} +- {total_error:.4f} {prior:10.2g} {reconstruction:15.4f} "
        f"{mean:11.4f} +- {error:.4f}"
    )


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
    """Returns the bound and the flow's bits per dimension [images], on the first images."""
    channels, *size = diffusion.sample_shape
    data = data_plan.build(image_size=tuple(size), channels=channels)
    if data.bits != 8:
        raise ValueError(f"--data.bits: expected 8 bits, got {data.bits}. Fix: set --data.bits 8.")
    has_classes = diffusion.num_classes is not None
    if has_classes and not data.class_names:
        raise ValueError(
            "--data: expected images with labels, as the network has classes, got none. "
            "Fix: add --data.labels true."
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
