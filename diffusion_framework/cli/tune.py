"""The command that tunes sampling in few network calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..denoisers import Guidance, as_guidance
from ..diffusion import GaussianDiffusion
from ..parts.extras import check_installed
from ..samplers.tuned_file import TunedFile
from ..storage.checkpoint import Checkpoint
from ..storage.config import to_config
from ..storage.description import Description
from ..storage.exporting import TUNED
from ..storage.post_hoc_ema import weights_name
from ..storage.run_paths import results_folder
from ..tuning import Search, plot_tuning, table
from ..tuning import tune as find_best
from .asked import asked_conditions, read_texts
from .common import built, check_positive, device_named


def tune(
    run: str,
    *,
    calls: list[int],
    paths: int = 256,
    teacher_calls: int = 100,
    guidance: float | Guidance = 1.0,
    labels: list[int | str] | None = None,
    text: list[str] | None = None,
    image: str | None = None,
    vector: list[float] | None = None,
    last: float | str | None = None,
    seed: int = 0,
    batch_size: int = 64,
    weights: Literal["ema", "model"] | float = "ema",
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
    trust: tuple[str, ...] = (),
) -> None:
    """Finds the sampler and the noise levels with which a model draws best in few network calls.

    It writes tuned.json and tuned.png to the folder of the run. From then on, sampling with one of
    these numbers of calls and the same guidance uses what was found, unless it names a sampler, a
    spacing or a level.

    The measure is the RMS distance between samples in few and in many calls from the same noise. It
    knows no images: where the network itself is wrong near the data, as small ones are, a large
    last level can look better. `diffusion evaluate` compares the quality; --last fixes the level.

    Examples:
      diffusion tune results/photos --calls 8
      diffusion tune results/flowers --calls 5,8,10 --guidance 2
      diffusion tune results/digits --calls 5 --last 0.35 --overwrite

    Args:
        run: Results folder of a run, whose newest checkpoint is tuned, one checkpoint, or an
            export.
        calls: Numbers of network calls to tune for, such as 5,8,10.
        paths: Number of samples to measure with. The second half is not searched, and gives the
            errors in the table.
        teacher_calls: Network calls for each path whose end is the goal.
        guidance: Scale of classifier-free guidance, or a kind of guidance, with which samples will
            be drawn; 1 switches it off.
        labels: Classes that the samples take in turn, as in `diffusion sample`; null uses all
            classes, or no class beside another condition.
        text: Text of the samples. Give the flag several times for several texts, or a .txt file
            with one on each line.
        image: Image of the condition, or a folder of images, which the samples take in turn.
        vector: Numbers of the condition, such as 0.5,2, for all samples.
        last: Noise level where the last step starts, as sigma / alpha, such as 0.35, or in another
            unit: log_snr=3, time=0.1; null searches it with the others.
        seed: Seed of the noise.
        batch_size: Number of samples walked together.
        weights: Weights to tune for: ema (their moving average), model (the last ones), or the
            width of an average, such as 0.08 (see trainer.ema.profiles).
        overwrite: Whether to replace what an earlier call found.
        device: Device to run on: auto, cpu, cuda, cuda:1 or mps.
        progress: Whether to show progress.
        trust: Packages whose classes the files may name; their code then runs.
    """
    check_positive(batch_size=batch_size)
    check_installed("matplotlib", "the plot")
    guided = built(guidance)
    options = Search(paths, teacher_calls, guided, last, seed, batch_size, progress)
    checkpoint = Checkpoint.find(run)
    folder = results_folder(checkpoint) or checkpoint.path
    if (folder / TUNED).exists() and not overwrite:
        raise ValueError(
            f"{folder / TUNED}: expected a run that was not tuned, got an earlier file. "
            "Fix: add --overwrite."
        )
    diffusion = GaussianDiffusion.from_pretrained(run, weights=weights, trust=trust)
    diffusion.to(device_named(device))
    asked = asked_conditions(diffusion, paths, labels, read_texts(text), image, vector)
    found = find_best(diffusion, calls, options, lambda of: asked.of(of, diffusion.device))
    about: dict[str, Any] = {"weights": weights_name(checkpoint, weights)}
    about["guidance"] = to_config(as_guidance(guided))
    about["step"] = Description.of(checkpoint).steps
    print(table(found, diffusion.schedule))
    print(f"done: {_write(found, diffusion, folder, about)}")


def _write(
    tuning: Tuning, diffusion: GaussianDiffusion, folder: Path, about: Mapping[str, Any]
) -> str:
    """Writes what is better than the defaults, and the picture; returns what it wrote."""
    parts = to_config(diffusion.schedule), to_config(diffusion.objective)
    better = tuple(one for one in tuning.found if one.error < one.default_error)
    path = TunedFile(*parts, found=better, **about).write(folder)
    plot_tuning(tuning, diffusion.schedule, folder / "tuned.png")
    return f"{path}, which sampling uses from now on, and tuned.png"
