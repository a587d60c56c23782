"""Draws many samples, on all processes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

from ...process.noise import sample_seeds
from ...progress import progress
from ...sampling import DrawsSamples


def draw_images(
    model: DrawsSamples,
    count: int,
    *,
    batch_size: int = 64,
    seed: int = 0,
    conditions: Mapping[str, Sequence[Any] | Tensor] | None = None,
    name: str = "samples",
    show_progress: bool = True,
    **options: Any,
) -> Tensor:
    """Returns samples as uint8 images [count, channels, height, width], on the CPU.

    Every process gets all of them; sample i depends only on the seed and i. Values are rounded as
    in PNG files.

    Args:
        model: Model to sample from.
        count: Number of samples.
        batch_size: Number of samples drawn together.
        seed: Seed of all samples.
        conditions: Values of the conditions by name, one for each sample; None without conditions.
        name: Title of the progress bar.
        show_progress: Whether to show it.
        options: Options of `DrawsSamples.walk`.

    Raises:
        ValueError: If samples of the model are not images, or an option does not fit.
    """
    state = PartialState()
    batches = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    own = batches[state.process_index :: state.num_processes]
    shown = show_progress and state.is_main_process
    found: list[tuple[int, Tensor]] = []
    for indices in progress(own, len(own), name, shown=shown, unit="batch"):
        own_rows = slice(indices.start, indices.stop)
        condition = {name: values[own_rows] for name, values in (conditions or {}).items()}
        seeds = sample_seeds(seed, indices)
        samples = model.sample(
            len(indices), seed=seeds, show_progress=False, **options, **condition
        )
        pictures = model.space.pictures(samples)
        if pictures is None:
            raise ValueError(
                f"Expected a model of images, got samples {list(samples.shape)}. "
                "Fix: measure the quality of models of images."
            )
        found.append((indices.start, (pictures * 255).round().to(torch.uint8).cpu()))
    if state.num_processes > 1:
        found = gather_object(found)
    return torch.cat([images for _, images in sorted(found, key=lambda part: part[0])])
