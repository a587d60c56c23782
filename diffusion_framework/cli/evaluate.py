"""The command that measures runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..data import ImageDataset
from ..denoisers import Guidance
from ..diffusion import GaussianDiffusion
from ..evaluation import check_plot
from ..evaluation.features import FeatureExtractor
from ..process.posterior import Variance
from ..samplers import Sampler
from ..training.launching import check_launch
from .common import built, check_positive, device_named
from .likelihood import measure_likelihood
from .quality import Measurement

Weights = Literal["ema", "model"] | float


def evaluate(
    *runs: str,
    data: ImageDataset | None = None,
    quality: bool = False,
    likelihood: bool = False,
    num_images: int | None = None,
    batch_size: int = 64,
    num_samples: int = 1000,
    samplers: list[Sampler] | None = None,
    calls: list[int] | None = None,
    guidance: float | Guidance = 1.0,
    features: FeatureExtractor | None = None,
    training_data: ImageDataset | None = None,
    reference: str | None = None,
    keep_samples: bool = False,
    steps: int | str | None = None,
    variance: Variance | None = None,
    terms: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
    weights: Weights | list[Weights] = "ema",
    output: str = "evaluation",
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Measures trained models: the quality of their samples, or the likelihood of images.

    Examples:
      diffusion evaluate results/photos --quality --data.folder held_out
      diffusion evaluate results/* --quality --data.folder held_out --calls 10,50
      diffusion evaluate results/photos --quality --data.folder held_out --weights 0.05,0.1,0.15
      diffusion evaluate results/photos --likelihood --data.folder held_out

    Args:
        runs: Results folders of runs, or one checkpoint of each run. For the quality, also npz
            files of samples.
        data: Dataset of held-out images to measure with.
        quality: Whether to measure the quality of samples: Fréchet and kernel distances to the
            images, precision and recall, density and coverage, and with training_data the share of
            samples that are no near-copies.
        likelihood: Whether to measure bits per dimension, by the variational bound and by the
            probability flow ODE.
        num_images: Largest number of images to measure with, evenly spread over the dataset; null
            is 1000 for the likelihood and all for the quality.
        batch_size: Number of images measured or sampled together.
        num_samples: Number of samples of each run, sampler and number of calls. Compare Fréchet
            distances only at equal numbers.
        samplers: Samplers to compare, such as DDIM,UniPC; null is each run's own, with which
            `diffusion sample` draws.
        calls: Numbers of network calls to compare, such as 10,50; null is the number that suits the
            sampler, such as 20 for UniPC and 50 for DDIM.
        guidance: Scale of classifier-free guidance, or a kind of guidance; 1 switches it off.
        features: Features in which the quality is measured: own (a small network trained on the
            images), inception, dinov2, torchvision or onnx.
        training_data: Images that the runs were trained on, to find copies of them.
        reference: File to use in place of data for the quality: npz with mu and sigma, or with
            images arr_0.
        keep_samples: Whether to write the samples, and the statistics of the images, as npz files
            that other evaluators read.
        steps: Number of steps of the variational bound, or 'ddim50' or '10,15,20'; null uses the
            model's timesteps.
        variance: Variance of the reverse steps in the variational bound; null is that of training.
        terms: Largest number of terms of the bound to compute, one network call each; the others
            are estimated from their neighbours.
        tolerance: Error tolerance of each step of the ODE solver.
        seed: Seed of the noise.
        weights: Weights to use: ema (their moving average), model (the last ones), or the width of
            an average, such as 0.08 (see trainer.ema.profiles). Several are compared:
            ema,0.05,0.1.
        output: Folder for the tables and pictures.
        overwrite: Whether to replace existing tables.
        device: Device to run on: auto, cpu, cuda, cuda:1 or mps.
        progress: Whether to show progress bars.
        trust: Packages whose classes the files may name; their code then runs.
    """
    flags = {**locals(), "guidance": built(guidance)}
    _check_request(flags)
    models = _models(runs, weights if isinstance(weights, list) else [weights])
    files = [*(f"{name}.csv" for name in models if likelihood), *["quality.json"] * quality]
    _check_output(Path(output), files, overwrite)
    _measure(flags, models)


def _measure(flags: Mapping[str, Any], asked: Mapping[str, tuple[str, Weights]]) -> None:
    """Measures models by name, each a run and its weights; flags are the command's arguments."""
    processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    check_launch(processes)
    folder, place = Path(flags["output"]), device_named(flags["device"])
    if processes.num_processes > 1 and flags["device"] == "auto":
        place = processes.device

    def opened(name: str) -> GaussianDiffusion:
        run, weights = asked[name]
        options: dict[str, Any] = {"weights": weights, "trust": flags["trust"]}
        return GaussianDiffusion.from_pretrained(run, **options).to(place)

    if flags["likelihood"]:
        check_plot()
        models = {name: opened(name) for name in asked}
        chosen = ["data", "batch_size", "progress", "seed", "tolerance", "steps", "variance"]
        options = {name: flags[name] for name in [*chosen, "terms"]}
        measure_likelihood(models, folder, num_images=flags["num_images"] or 1000, **options)
    if flags["quality"]:
        options = {f.name: flags[f.name] for f in fields(Measurement) if f.name in flags}
        measurement = Measurement(**{**options, "device": place})
        paths = {name: run for name, (run, _) in asked.items()}
        measurement.run(paths, opened, folder, flags["keep_samples"])


def _check_request(flags: Mapping[str, Any]) -> None:
    """Raises ValueError if there is nothing to measure, or nothing to measure it with."""
    if not flags["runs"]:
        raise ValueError(
            "RUNS: expected results folders, got none. Fix: give the folders of trained runs."
        )
    if not flags["likelihood"] and not flags["quality"]:
        raise ValueError(
            "Expected a quantity to measure, got none. Fix: add --quality or --likelihood."
        )
    if flags["data"] is None and (flags["likelihood"] or flags["reference"] is None):
        raise ValueError("--data: expected held-out images, got none. Fix: add --data.folder PATH.")
    numbers = {name: flags[name] for name in ("num_images", "batch_size", "num_samples")}
    check_positive(**{name: number for name, number in numbers.items() if number is not None})
    if flags["quality"] and flags["num_samples"] < 10:
        raise ValueError(
            f"--num_samples: expected at least 10, got {flags['num_samples']}. "
            "Fix: draw more, such as 1000."
        )


def _models(runs: Sequence[str], weights: Sequence[Weights]) -> dict[str, tuple[str, Weights]]:
    """Returns each run with each of the weights by name; samples in a file have no weights.

    Raises:
        ValueError: If two names are equal.
    """
    names, models = [], {}
    for run in runs:
        names.append(name := Path(run).resolve().name.removesuffix(".npz"))
        several = len(weights) > 1 and not run.endswith(".npz")
        for kind in weights if several else weights[:1]:
            models[f"{name}-{kind}" if several else name] = run, kind
    if len(set(names)) < len(names):
        raise ValueError(
            "RUNS: expected folders of different names, as each names a table, got "
            f"{', '.join(names)}. Fix: rename one."
        )
    return models


def _check_output(folder: Path, files: Sequence[str], overwrite: bool) -> None:
    """Raises ValueError if one of the files exists and may not be replaced."""
    existing = [folder / file for file in files if (folder / file).exists()]
    if existing and not overwrite:
        raise ValueError(
            f"--output: expected a folder without these tables, got {existing[0]}. "
            "Fix: choose another folder, or add --overwrite."
        )
