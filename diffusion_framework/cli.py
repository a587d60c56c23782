"""The parsers behind scripts/: the signatures of the classes are the flags and the config keys."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import ArgumentParser
from tqdm.auto import tqdm

from .checkpoint import Checkpoint, list_checkpoints
from .data import ImageDataset, TrainingDataset
from .diffusion import GaussianDiffusion
from .evaluation import (
    BoundTerms,
    bits_per_dim,
    check_plot,
    flow_bits_per_dim,
    mean_and_error,
    plot_bounds,
    write_bound,
)
from .labels import check_labels
from .pictures import save_animation, save_grid, save_picture
from .policy import DiffusionPolicy
from .policy.rollout import make_environment, plan_latency, run_episodes, streams, summary
from .process.posterior import VARIANCES
from .process.noise import sample_seeds
from .samplers import Sampler
from .training import Trainer


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line, without the usage text; exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        _fail(message)


def train(argv: Sequence[str], default_config: Path) -> None:
    """scripts/train.py.

    Args:
        argv: The command line, without the program.
        default_config: What to train where the command line names neither a config nor data.
    """
    names_data = any(
        word.split("=")[0] in ("--config", "--data", "--data.folder", "--data.class_path") for word in argv
    )
    for word in argv:  # the linked values would silently win
        if re.match(r"--data\.(init_args\.)?(image_size|channels)\b", word):
            _fail(f"{word} does not set the size of the images; it is the network's: set --diffusion.model.image_size")
    parser = train_parser()
    # --print_config without comments would be of little use to start from
    words = ["--print_config=comments" if word == "--print_config" else word for word in argv]
    with _short_lists_of_classes():
        args = parser.parse_args(words if names_data else [f"--config={default_config}", *words])
        if args.resume and (stored := _stored_config(args.trainer.results_folder)):
            args = parser.parse_args([f"--config={stored}", *words])
    with _one_line_errors(OSError):
        torch.manual_seed(args.trainer.seed)  # the network's first weights
        built = parser.instantiate_classes(args)
        trainer = Trainer(built.diffusion, built.data, validation=built.get("validation"), **vars(built.trainer))
    with _one_line_errors(FloatingPointError, OSError):
        trainer.train(resume=args.resume)
    if trainer.accelerator.is_main_process:
        print(
            f"done: {trainer.results_folder}; sample with: python scripts/sample.py {trainer.results_folder} --steps 50"
        )


def _stored_config(results_folder: str) -> Path | None:
    """The config of the newest checkpoint that has a readable one."""
    for path in reversed(list_checkpoints(results_folder)):
        try:
            if Checkpoint.open(path).config:
                return path / "config.yaml"
        except ValueError:
            continue  # the trainer says what is wrong with it
    return None


def train_parser() -> OneLineParser:
    """The parser of scripts/train.py."""
    parser = OneLineParser(
        prog="train.py",
        description="Train a diffusion model on a folder of images, or without any options on handwritten digits.",
        epilog="Most used: --data.folder PATH --diffusion.model.image_size 64 --trainer.results_folder PATH. All "
        "options of a class: --data.help ImageFolder, --diffusion.help GaussianDiffusion, --diffusion.model.help UNet.",
    )
    parser.add_argument("--config", action="config", help="A YAML config; flags after it override it.")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Go on from the newest checkpoint of the results folder, with its settings where no others are given.",
    )
    parser.add_subclass_arguments(TrainingDataset, "validation", required=False)
    network = {"class_path": "diffusion_framework.UNet"}
    parser.add_subclass_arguments(TrainingDataset, "data", default={"class_path": "diffusion_framework.ImageFolder"})
    parser.add_subclass_arguments(
        GaussianDiffusion,
        "diffusion",
        default={"class_path": "diffusion_framework.GaussianDiffusion", "init_args": {"model": network}},
    )
    parser.add_class_arguments(
        Trainer, "trainer", skip={"diffusion", "folder", "validation", "convert_image_to"}, instantiate=False
    )
    for key, of in {  # the data comes as the network asks; what the class of the data does not take is not asked
        "image_size": lambda diffusion: diffusion.sample_shape[1:],
        "channels": lambda diffusion: diffusion.sample_shape[0],
        "horizon": lambda diffusion: getattr(diffusion, "horizon", None),
        "observation_steps": lambda diffusion: getattr(diffusion, "observation_steps", None),
        "action_steps": lambda diffusion: getattr(diffusion, "action_steps", None),
    }.items():
        for data in ("data", "validation"):
            parser.link_arguments("diffusion", f"{data}.init_args.{key}", compute_fn=of, apply_on="instantiate")
    return parser


def sample(argv: Sequence[str]) -> None:
    """scripts/sample.py; argv is the command line, without the program."""
    parser = sample_parser()
    args = parser.parse_args(argv)
    with _one_line_errors(OSError):
        asked = any(word.startswith("--sampler") for word in argv)
        sampler = parser.instantiate_classes(args).sampler if asked else None
        for name in ("num_samples", "batch_size"):
            if args[name] < 1:
                raise ValueError(f"{name} must be at least 1; got {args[name]}")
        output = Path(args.output)
        if not args.overwrite and any(output.glob("*.png")):
            raise ValueError(f"{output} already holds images; choose another --output, or add --overwrite")
        device = _device(args.device)
        diffusion = GaussianDiffusion.from_checkpoint(args.checkpoint, weights=args.weights, device=device)
        turn = _classes_in_turn(args.labels, diffusion)
        grid = diffusion.grid(args.steps, args.spacing)
    with _one_line_errors(OSError, FloatingPointError):
        shown: list[torch.Tensor] = []
        for first in tqdm(range(0, args.num_samples, args.batch_size), desc="batches", disable=not args.progress):
            indices = range(first, min(first + args.batch_size, args.num_samples))
            condition: dict[str, Any] = {"guidance": args.guidance}
            if turn:
                condition["labels"] = torch.tensor([turn[i % len(turn)] for i in indices], device=device)
            images = diffusion.sample(
                len(indices),
                sampler=sampler,
                grid=grid,
                seed=sample_seeds(args.seed, indices),
                clip_denoised=args.clip_denoised,
                show_progress=args.progress,
                **condition,
            ).cpu()
            shown.extend(images[: 100 - len(shown)])
            for index, image in zip(indices, images, strict=True):
                save_picture(image, output / f"{index:05d}.png")
        save_grid(torch.stack(shown), output / "grid.png", columns=len(turn) or None)
    print(f"done: {args.num_samples} images and grid.png in {output}")


def sample_parser() -> OneLineParser:
    """The parser of scripts/sample.py."""
    parser = OneLineParser(prog="sample.py", description="Sample images from a checkpoint.")
    parser.add_argument("checkpoint", type=str, help="A results folder, or one checkpoint in it.")
    parser.add_argument("--num_samples", type=int, default=25, help="Images to make.")
    parser.add_argument("--batch_size", type=int, default=64, help="Images at a time; changes no image.")
    parser.add_argument(
        "--steps",
        type=int | str | None,
        default=None,
        help="Steps of the sampler, or 'ddim50' or '10,15,20'; null: as trained.",
    )
    parser.add_argument(
        "--spacing", choices=["time", "log_snr", "optimal"], default="time", help="Where they are even."
    )
    parser.add_argument("--seed", type=int, default=0, help="Image i is the same for the same seed.")
    parser.add_argument(
        "--clip_denoised",
        type=bool | Literal["dynamic"],
        default=True,
        help="Keep estimates of the images in range: true, false, or dynamic (thresholding).",
    )
    parser.add_argument("--labels", type=_numbers, default=None, help="Classes to take in turn: 3,5; default: all.")
    parser.add_argument("--guidance", type=float, default=1.0, help="Of classes, if trained with label_dropout.")
    parser.add_argument("--weights", choices=["ema", "model"], default="ema", help="Averaged weights, or the last.")
    parser.add_argument("--output", type=str, default="samples", help="Folder of the images and their grid.")
    parser.add_argument("--overwrite", action="store_true", help="Allow an output folder that holds images.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--progress", type=bool, default=True, help="Show progress bars.")
    # the default only says whose options --sampler.eta are: without any --sampler the run's own is taken
    parser.add_subclass_arguments(Sampler, "sampler", default={"class_path": "diffusion_framework.DDIM"})
    return parser


def evaluate(argv: Sequence[str]) -> None:
    """scripts/evaluate.py; argv is the command line, without the program."""
    parser = evaluate_parser()
    args = parser.parse_args(argv)
    with _one_line_errors(OSError, FloatingPointError):
        if not args.likelihood:
            raise ValueError("nothing to evaluate; add --likelihood")
        for name in ("num_images", "batch_size"):
            if args[name] < 1:
                raise ValueError(f"{name} must be at least 1; got {args[name]}")
        names = [Path(run).resolve().name for run in args.runs]
        output = Path(args.output)
        files = [output / f"{name}.csv" for name in names]
        if len(set(names)) < len(names):
            raise ValueError(f"runs of different names are needed, as each has a table; got {', '.join(names)}")
        if not args.overwrite and (there := [file for file in files if file.exists()]):
            raise ValueError(f"{there[0]} exists already; choose another --output, or add --overwrite")
        check_plot()
        device = _device(args.device)
        models = [GaussianDiffusion.from_checkpoint(run, weights=args.weights, device=device) for run in args.runs]
        bounds, lines = {}, []
        for name, file, diffusion in zip(names, files, models, strict=True):
            bounds[name], flow = _likelihood(diffusion, parser, args, name)
            write_bound(bounds[name], file)
            reconstruction = bounds[name].steps[:, -1].mean().item()
            (bound, bound_error), (mean, error) = mean_and_error(bounds[name].total), mean_and_error(flow)
            lines.append(
                f"{name:24} {bound:8.4f} +- {bound_error:.4f} {bounds[name].prior.mean().item():10.2g} "
                f"{reconstruction:15.4f} {mean:11.4f} +- {error:.4f}"
            )
        plot_bounds(bounds, output / "bounds.png")
    print(f"{'bits per dimension':24} {'bound':>8} {'':9} {'prior':>10} {'reconstruction':>15} {'flow':>11}")
    print(*lines, sep="\n")
    print(f"done: the bound's terms as tables, and bounds.png, in {output}")


def evaluate_parser() -> OneLineParser:
    """The parser of scripts/evaluate.py."""
    parser = OneLineParser(prog="evaluate.py", description="Measure trained models on images that they have not seen.")
    parser.add_argument("runs", type=str, nargs="+", help="Results folders, or one checkpoint of each.")
    parser.add_argument("--likelihood", action="store_true", help="Bits per dimension, by the bound and by the flow.")
    parser.add_argument("--num_images", type=int, default=1000, help="Images to take, from the first.")
    parser.add_argument("--batch_size", type=int, default=64, help="Images at a time.")
    parser.add_argument(
        "--steps",
        type=int | str | None,
        default=None,
        help="Steps of the bound, or 'ddim50' or '10,15,20'; null: as trained.",
    )
    parser.add_argument(
        "--variance", choices=VARIANCES, default=None, help="Of the bound's reverse steps; by default as in training."
    )
    parser.add_argument("--tolerance", type=float, default=1e-4, help="Largest error of a step of the flow.")
    parser.add_argument("--seed", type=int, default=0, help="Of the noise.")
    parser.add_argument("--weights", choices=["ema", "model"], default="ema", help="Averaged weights, or the last.")
    parser.add_argument("--output", type=str, default="likelihood", help="Folder of the tables and the plot.")
    parser.add_argument("--overwrite", action="store_true", help="Replace tables of these names.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--progress", type=bool, default=True, help="Show progress bars.")
    parser.add_subclass_arguments(
        ImageDataset,
        "data",
        default={"class_path": "diffusion_framework.ImageFolder"},
        skip={"image_size", "channels"},  # they come as the network asks
    )
    return parser


def _likelihood(
    diffusion: GaussianDiffusion, parser: OneLineParser, args: Any, name: str
) -> tuple[BoundTerms, torch.Tensor]:
    """The bound on the first images of the data, and [images] bits per dimension by the flow."""
    channels, *size = diffusion.sample_shape
    for key, value in (("image_size", tuple(size)), ("channels", channels)):
        args.data.init_args[key] = value
    data: Any = parser.instantiate_classes(args).data
    has_classes = getattr(diffusion.model, "num_classes", None) is not None
    if has_classes and not data.class_names:
        raise ValueError("this network has classes, and the images come without; add --data.labels true")
    bounds, flows = [], []
    count = min(args.num_images, len(data))
    for first in tqdm(range(0, count, args.batch_size), desc=name, disable=not args.progress):
        indices = range(first, min(first + args.batch_size, count))
        pairs = [item if isinstance(item, tuple) else (item, 0) for item in (data[i] for i in indices)]
        images = torch.stack([image for image, _ in pairs]).to(diffusion.device).float() / 255
        labels = torch.tensor([label for _, label in pairs], device=diffusion.device)
        condition: dict[str, Any] = {"labels": labels} if has_classes else {}
        seeds = sample_seeds(args.seed, indices)
        bounds.append(bits_per_dim(diffusion, images, steps=args.steps, variance=args.variance, seed=seeds, **condition))
        flows.append(flow_bits_per_dim(diffusion, images, tolerance=args.tolerance, seed=seeds, **condition))
    return BoundTerms.cat(bounds), torch.cat(flows)


def rollout(argv: Sequence[str]) -> None:
    """scripts/rollout.py; argv is the command line, without the program."""
    parser = rollout_parser()
    args = parser.parse_args(argv)
    with _one_line_errors(OSError, FloatingPointError):
        asked = any(word.startswith("--sampler") for word in argv)
        options: dict[str, Any] = {"sampler": parser.instantiate_classes(args).sampler if asked else None}
        for name in ("episodes", "environments", "latency"):
            if args[name] < 1:
                raise ValueError(f"{name} must be at least 1; got {args[name]}")
        policy = DiffusionPolicy.from_checkpoint(args.checkpoint, weights=args.weights, device=_device(args.device))
        options["grid"] = policy.grid(policy.plan_steps if args.steps is None else args.steps, args.spacing)
        make = partial(make_environment, args.env, **{"render_mode": "rgb_array"} if args.video else {}, **args.options)
        environments = [make() for _ in range(min(args.environments, args.episodes))]
        with tqdm(total=args.episodes, desc="episodes", disable=not args.progress) as bar:
            episodes = run_episodes(
                policy,
                environments,
                range(args.seed, args.seed + args.episodes),
                frames=args.video is not None,
                on_end=lambda episode: bar.update(),
                **options,
                warm_start=args.warm_start,
            )
        print(summary(episodes))
        observation = streams(policy, [environments[0].reset(seed=args.seed)[0]])
        median, worst = plan_latency(policy, observation, args.latency, **options)
        print(
            f"one plan     {1000 * median:.1f} ms median, {1000 * worst:.1f} ms 99th percentile ({args.latency} plans)"
        )
        for episode in episodes if args.video else ():
            save_animation(episode.frames, Path(args.video) / f"{episode.seed}.gif")


def rollout_parser() -> OneLineParser:
    """The parser of scripts/rollout.py."""
    parser = OneLineParser(prog="rollout.py", description="Let a trained policy act in a gymnasium environment.")
    parser.add_argument("checkpoint", type=str, help="A results folder, or one checkpoint in it.")
    parser.add_argument("--env", type=str, required=True, help="Id of the environment, as gym_pusht/PushT-v0.")
    parser.add_argument("--options", type=dict[str, Any], default={}, help="Of the environment: '{obs_type: state}'.")
    parser.add_argument("--episodes", type=int, default=50, help="Episodes to run.")
    parser.add_argument("--environments", type=int, default=25, help="How many go side by side.")
    parser.add_argument("--seed", type=int, default=100_000, help="Of the first episode; the next has the next one.")
    parser.add_argument("--steps", type=int | None, default=None, help="Sampler steps of a plan; null: the policy's.")
    parser.add_argument(
        "--spacing", choices=["time", "log_snr", "optimal"], default="time", help="Where they are even."
    )
    parser.add_argument(
        "--warm_start",
        type=float | None,
        default=None,
        help="Time in (0, 1] at which plans start from the last ones; null: from pure noise.",
    )
    parser.add_argument("--video", type=str | None, default=None, help="Folder for an animated GIF of each episode.")
    parser.add_argument("--latency", type=int, default=100, help="Plans to time, one environment at a time.")
    parser.add_argument("--weights", choices=["ema", "model"], default="ema", help="Averaged weights, or the last.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--progress", type=bool, default=True, help="Show a progress bar.")
    parser.add_subclass_arguments(Sampler, "sampler", default={"class_path": "diffusion_framework.DDIM"})
    return parser


def _device(name: str) -> torch.device:
    """The device of this name, tried; auto is the first GPU, if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try cpu") from error


def _numbers(text: str) -> list[int]:
    """'3,5' or '[3, 5]' -> [3, 5]."""
    try:
        return [int(part) for part in str(text).strip("[] ").split(",")]
    except ValueError as error:
        raise ArgumentTypeError(f"wanted whole numbers such as 3,5; got {text!r}") from error


def _classes_in_turn(asked: list[int] | None, diffusion: GaussianDiffusion) -> list[int]:
    """The classes that samples take in turn: those asked for, or else all of the network's; none without classes."""
    classes = diffusion.num_classes
    if asked is None:
        return list(range(classes or 0))
    if classes is None:
        raise ValueError("--labels needs a network with classes; this one was trained without labels")
    check_labels(torch.tensor(asked), classes)
    return asked


@contextmanager
def _one_line_errors(*also: type[BaseException]) -> Iterator[None]:
    """What users can cause ends the script with one line and exit code 2."""
    expected: tuple[type[BaseException], ...] = (ValueError, *also)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not str(interrupt):  # else it was said already
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    except expected as error:
        if os.environ.get("DIFFUSION_FRAMEWORK_TRACEBACK"):
            raise
        _fail(str(error))


@contextmanager
def _short_lists_of_classes() -> Iterator[None]:
    """Drop the lists of every nn.Module in memory that help and printed configs would offer as networks."""
    text = StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:
        sys.stdout.write(re.sub(r", known subclasses: torch\.nn[^)]*", ", any network", text.getvalue()))


def _fail(message: object) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # of several processes, one is enough to say it
        print(f"error: {_one_line(str(message))}", file=sys.stderr)
    sys.exit(2)


def _one_line(message: str) -> str:
    """The part of a library's message that helps, on one line."""
    if "Original Traceback" in message:  # from a data worker: its last line is the error itself
        message = message.strip().splitlines()[-1].partition(": ")[2]
    message = " ".join(message.split())
    if "Union subtypes" in message:  # one complaint for each type that an option may have: those of type are no news
        complaints = message.partition(" Errors: - ")[2].partition(" Given value type: ")[0].split(" - ")
        message = "; ".join(c for c in complaints if not c.startswith("Expected a <class")) or message
    if re.search(r"Literal\[.* Got value: (True|False)$", message):
        message += "; in YAML, put no, off, yes and on in quotes"
    if name := re.search(r"Expected a dot import path string: (\S+)", message):
        message = f"there is no class {name[1]!r}; give one of this package, or an import path as package.module.Class"
    return message
