"""Measures the likelihood of images under trained models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..conditions.bound import DATA_FLAGS
from ..data.loading.loader import to_device
from ..diffusion import GaussianDiffusion
from ..evaluation import (
    BoundTerms,
    bits_per_dim,
    flow_bits_per_dim,
    mean_and_error,
    plot_bounds,
    write_bound,
)
from ..evaluation.features.base import spread
from ..process.noise import sample_seeds
from ..progress import progress as shown_progress


def measure_likelihood(
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
    """Returns the bound and the flow's bits per dimension [images], on images spread evenly."""
    channels, *size = diffusion.sample_shape
    data = data_plan.build(image_size=tuple(size), channels=channels)
    if data.bits != 8:
        raise ValueError(f"--data.bits: expected 8 bits, got {data.bits}. Fix: set --data.bits 8.")
    bounds, flows = [], []
    chosen = spread(len(data), num_images)
    starts = range(0, len(chosen), batch_size)
    for first in shown_progress(starts, len(starts), name, shown=progress, unit="batch"):
        indices = [int(index) for index in chosen[first : first + batch_size]]
        images, told = to_device(data.take(np.asarray(indices)), diffusion.device)
        images = images.float() / 255
        condition = {name: told[name] for name in _needed(diffusion, told)}
        condition |= {"seed": sample_seeds(seed, indices), "show_progress": progress}
        bounds.append(bits_per_dim(diffusion, images, **bound_options, **condition))
        flows.append(flow_bits_per_dim(diffusion, images, tolerance=tolerance, **condition))
    return BoundTerms.cat(bounds), torch.cat(flows)


def _needed(diffusion: GaussianDiffusion, told: Collection[str]) -> list[str]:
    """Returns the names of the model's conditions.

    Raises:
        ValueError: If the data lacks one of them.
    """
    for name in diffusion.conditions.given:
        if name not in told:
            flag = DATA_FLAGS.get(name, "--data")
            raise ValueError(
                f"--data: expected images with {name}, as the model has this condition, got none. "
                f"Fix: add {flag}."
            )
    return diffusion.conditions.given
