"""The command that samples from a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from ..denoisers import Guidance
from ..diffusion import GaussianDiffusion
from ..parts.counting import counted
from ..process.noise import sample_seeds
from ..progress import progress as shown_progress
from ..samplers import Sampler
from ..storage.images import npy, png
from ..storage.labelled import labelled_grid
from .asked import Asked, asked_conditions, read_texts
from .common import built, check_positive, device_named
from .outputs import Outputs

Samples = list[tuple[torch.Tensor, torch.Tensor | None]]
"""Samples in their own units, each with its picture, if it is an image."""


def sample(
    run: str = "drawings",
    *,
    num_samples: int = 25,
    batch_size: int = 64,
    sampler: Sampler | None = None,
    steps: int | str | None = None,
    calls: int | None = None,
    spacing: Literal["time", "log_snr", "optimal"] | None = None,
    first: float | str | None = None,
    last: float | str | None = None,
    seed: int = 0,
    clip_denoised: bool | Literal["dynamic"] = True,
    labels: list[int | str] | None = None,
    text: list[str] | None = None,
    image: str | None = None,
    vector: list[float] | None = None,
    guidance: float | Guidance = 1.0,
    self_conditioning: float | None = None,
    weights: Literal["ema", "model"] | float = "ema",
    output: str = "samples",
    overwrite: bool = False,
    device: str = "auto",
    noise_device: str | None = None,
    progress: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Samples images from a run, or from a small model of drawings that comes along.

    Examples:
      diffusion sample                                           drawings, by a packaged model
      diffusion sample results/photos                            25 images in samples/
      diffusion sample results/flowers --labels daisy,roses
      diffusion sample results/emoji --text "a red heart" --text "a blue heart" --guidance 3
      diffusion sample results/photos --sampler DDIM --sampler.eta 1 --calls 100 --output more
      diffusion sample results/flowers --guidance Interval --guidance.scale 3 --guidance.low 0.2

    Args:
        run: Results folder of a run, one of its checkpoints, an export, or drawings: a small model
            that comes along.
        num_samples: Number of images to sample.
        batch_size: Number of images sampled together; it does not change the images.
        sampler: Sampler; null is the model's own, in most cases auto: the best one known for the
            number of network calls.
        steps: Number of sampler steps, or 'ddim50' or '10,15,20'; null takes the network calls that
            suit the sampler: 20, 50 for DDIM, or all steps of the process for DDPM.
        calls: Largest number of network calls for an image, in place of steps.
        spacing: Spacing of the sampler steps: even in time or log_snr, or optimal for few steps;
            null is time, or the spacing that suits the sampler and its number of calls.
        first: Noise level where the first step starts, as sigma / alpha, such as 80, or in another
            unit: log_snr=-9, time=0.9; null starts from pure noise.
        last: Noise level where the last step starts, given like first; null is the default of the
            spacing.
        seed: Seed of the noise; the noise of image i depends only on the seed and i.
        clip_denoised: Whether estimates of the clean image are clipped to the data range: true,
            false, or dynamic (dynamic thresholding).
        labels: Classes that the images take in turn, by number or name, such as 3,5 or daisy,rose;
            null uses all classes, or no class beside another condition.
        text: Text that the images show. Give the flag several times for several texts, each a row
            of the grid, or a .txt file with one on each line.
        image: Image of the condition, such as one of low resolution, or a folder of images, which
            the samples take in turn.
        vector: Numbers of the condition, such as 0.5,2, for all images.
        guidance: Scale of classifier-free guidance, or a kind of guidance; 1 switches it off.
        self_conditioning: Factor in [0, 1] of the last estimate that a network with
            self-conditioning sees; null extrapolates them, damped in less than 15 steps.
        weights: Weights to use: ema (their moving average), model (the last ones), or the width of
            an average, such as 0.08 (see trainer.ema.profiles).
        output: Folder for the images.
        overwrite: Whether to replace the images that an earlier call wrote to the folder. It
            deletes only files that the folder's index.csv lists.
        device: Device to run on: auto, cpu, cuda, cuda:1 or mps.
        noise_device: Device that draws the noise: cpu gives the same noise, and the same images up
            to rounding, on every kind of device; null is the device of the network.
        progress: Whether to show progress bars.
        trust: Packages whose classes the files may name; their code then runs.
    """
    how: dict[str, Any] = {"sampler": built(sampler), "guidance": built(guidance)}
    how |= {"steps": steps, "calls": calls, "spacing": spacing, "first": first, "last": last}
    check_positive(num_samples=num_samples, batch_size=batch_size)
    outputs, texts = Outputs(Path(output), overwrite), read_texts(text)
    drawn_on = None if noise_device is None else device_named(noise_device, "--noise_device")
    diffusion = _opened(run, device, weights=weights, trust=trust)
    asked = asked_conditions(diffusion, num_samples, labels, texts, image, vector)
    how |= {"clip_denoised": clip_denoised, "self_conditioning": self_conditioning}
    how |= {"noise_device": drawn_on, "show_progress": progress}
    batches = _batches(num_samples, batch_size, progress)
    images = (_images(diffusion, batch, seed, asked, how) for batch in batches)
    what = _write(images, outputs, partial(_sheet, diffusion, asked), diffusion.space.bins)
    print(f"done: {what}{asked.note}")


def _opened(run: str, device: str, **options: Any) -> GaussianDiffusion:
    return GaussianDiffusion.from_pretrained(run, **options).to(device_named(device))


def _sheet(diffusion: GaussianDiffusion, asked: Asked, images: torch.Tensor) -> torch.Tensor:
    """Returns the first samples in one image, each with the text or image it was asked for."""
    return labelled_grid(images, *asked.views(diffusion, len(images)), asked.columns)


def _batches(count: int, size: int, progress: bool) -> Iterable[range]:
    """Returns the indices of each batch, with progress if there are several."""
    indices = range(count)
    batches = [indices[first : first + size] for first in indices[::size]]
    shown = progress and len(batches) > 1
    return shown_progress(batches, len(batches), "batches", shown=shown, unit="batch")


def _write(
    batches: Iterable[Samples],
    outputs: Outputs,
    sheet: Callable[[torch.Tensor], torch.Tensor],
    bins: int | None,
) -> str:
    """Writes each sample, and a sheet of the first 100.

    Samples whose values a picture does not show as they are become .npy files as well.

    Returns:
        What was written, for the last line.
    """
    bits = 16 if (bins or 0) > 256 else 8
    shown: list[torch.Tensor] = []
    index = -1
    for index, (sample, picture) in enumerate(pair for batch in batches for pair in batch):
        if picture is not None:
            outputs.write(f"{index:05d}.png", png(picture, bits))
            shown += [picture] if index < 100 else []
        if picture is None or not torch.equal(picture, sample):
            outputs.write(f"{index:05d}.npy", npy(sample))

    def between(ending: str, noun: str) -> str:
        last = "" if index == 0 else f" to {index:05d}.{ending}"
        return f"{counted(index + 1, noun)}, {outputs.folder / '00000'}.{ending}{last}"

    if not shown:
        return between("npy", "sample")
    outputs.write("grid.png", png(sheet(torch.stack(shown))))
    return f"{between('png', 'image')}, all in {outputs.folder / 'grid.png'}"


def _images(
    diffusion: GaussianDiffusion,
    indices: range,
    seed: int,
    asked: Asked,
    options: dict[str, Any],
) -> Samples:
    """Returns the samples of these indices with their pictures in [0, 1], on the CPU."""
    options = {**options, **asked.of(indices, diffusion.device)}
    samples = diffusion.sample(len(indices), seed=sample_seeds(seed, indices), **options)
    pictures = diffusion.space.pictures(samples)
    if pictures is None:
        return [(sample, None) for sample in samples.cpu()]
    return list(zip(samples.cpu(), pictures.cpu(), strict=True))
