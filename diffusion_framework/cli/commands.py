"""The table of commands. It imports nothing else, so that help is fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Command:
    """A command of the program `diffusion`.

    Attributes:
        home: 'module:function' in this folder. The signature of the function gives the flags, and
            its docstring the help.
        usual: The flags on the help page, by heading.
        words: Words without dashes: their names in the help and the flags that they stand for.
        defaults: Tree of the classes that are meant where only options are given.
        given: For each argument, the options that the command supplies itself, with their origins.
        shown_defaults: Defaults that the command itself chooses, in words, by flag.
        base_config: 'module:function' that returns the options below the flags, see `run`.
        repeated: Flags that may be given several times, for a list.
        light: Whether the command takes a few words without options, and imports no PyTorch.
    """

    home: str
    usual: Mapping[str, tuple[str, ...]]
    words: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shown_defaults: Mapping[str, str] = field(default_factory=dict)
    base_config: str | None = None
    repeated: tuple[str, ...] = ()
    light: bool = False


def _part(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": name, **({"init_args": options} if options else {})}


_FROM_MODEL = {
    "image_size": "--diffusion.model.image_size",
    "channels": "--diffusion.model.channels",
    **dict.fromkeys(("horizon", "observation_steps", "action_steps"), "the policy"),
}
_FROM_NETWORK = dict.fromkeys(("image_size", "channels"), "the network")

COMMANDS = {
    "train": Command(
        "train:train",
        usual={
            "Data": ("data", "data.labels", "validation"),
            "Model": (
                "diffusion.model",
                "diffusion.model.image_size",
                "diffusion.model.dim",
                "diffusion.objective",
                "diffusion.noise_schedule",
            ),
            "Training": (
                "trainer.train_num_steps",
                "trainer.train_batch_size",
                "trainer.train_lr",
                "trainer.minutes",
                "trainer.results_folder",
                "resume",
            ),
        },
        words={"FOLDER": "data.folder"},
        defaults={
            "data": _part("ImageFolder"),
            "diffusion": _part("GaussianDiffusion", model=_part("UNet")),
            "trainer": {},
        },
        given={
            "data": _FROM_MODEL,
            "validation": _FROM_MODEL,
            "trainer": {
                "model": "--diffusion",
                "folder_or_dataset": "--data",
                "validation": "--validation",
                "convert_image_to": "--data.convert_image_to",
            },
        },
        shown_defaults={"trainer.results_folder": "results/ and the name of the folder or recipe"},
        base_config="train:base_config",
    ),
    "sample": Command(
        "sample:sample",
        usual={
            "What to draw": ("run", "num_samples", "labels", "text", "guidance", "seed"),
            "How": ("sampler", "steps", "calls", "spacing", "weights", "device", "batch_size"),
            "Where to": ("output", "overwrite"),
        },
        defaults={"sampler": _part("UniPC"), "guidance": _part("ClassifierFree")},
        repeated=("text",),
    ),
    "evaluate": Command(
        "evaluate:evaluate",
        usual={
            "What to measure": (
                *("runs", "quality", "likelihood", "data.folder", "num_images", "weights"),
            ),
            "Quality": ("num_samples", "samplers", "calls", "features", "training_data.folder"),
            "Likelihood": ("steps", "tolerance"),
            "Where to": ("output", "overwrite", "device"),
        },
        defaults={
            "data": _part("ImageFolder"),
            "training_data": _part("ImageFolder"),
            "features": _part("Own"),
            "guidance": _part("ClassifierFree"),
        },
        given=dict.fromkeys(("data", "training_data"), _FROM_NETWORK),
    ),
    "tune": Command(
        "tune:tune",
        usual={
            "What to tune": ("run", "calls", "guidance", "labels", "text", "weights"),
            "How": ("paths", "last", "seed", "device", "batch_size"),
            "Results": ("overwrite",),
        },
        defaults={"guidance": _part("ClassifierFree")},
        repeated=("text",),
    ),
    "rollout": Command(
        "rollout:rollout",
        usual={
            "What to run": ("run", "env", "options", "episodes", "environments", "seed"),
            "Plans": ("sampler", "steps", "calls", "guidance", "warm_start", "weights", "device"),
            "Results": ("video", "latency"),
        },
        defaults={"sampler": _part("DDIM"), "guidance": _part("ClassifierFree")},
    ),
    "export": Command(
        "export:export", usual={"What to share": ("run", "folder", "weights", "half")}
    ),
    "info": Command("info:info", usual={"What to describe": ("run", "json")}),
    "runs": Command("runs:runs", usual={"What to list": ("folder", "sort", "json")}),
    "recipes": Command("recipes:recipes", usual={}, light=True),
    "completion": Command("completion:completion", usual={"Shell": ("shell",)}, light=True),
}
