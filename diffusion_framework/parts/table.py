"""The parts that files may name, and the search for the class of a name."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

PACKAGE = __name__.split(".")[0]

TABLE: dict[str, dict[str, str]] = {
    "Sampler": {
        "adaptive_dpm_solver": "samplers.adaptive.dpm_solver:AdaptiveDPMSolver",
        "churn": "samplers.churn:Churn",
        "ddim": "samplers.ddim:DDIM",
        "ddpm": "samplers.ddpm:DDPM",
        "dpm2": "samplers.dpm2:DPM2",
        "dpm_solver": "samplers.dpm_solver:DPMSolver",
        "euler": "samplers.euler:Euler",
        "heun": "samplers.heun:Heun",
        "karras_ve": "samplers.karras_ve:KarrasVE",
        "langevin": "samplers.langevin:Langevin",
        "lcm": "samplers.lcm:LCM",
        "lms": "samplers.lms:LMS",
        "reverse_diffusion": "samplers.reverse_diffusion:ReverseDiffusion",
        "rk45": "samplers.adaptive.rk45:RK45",
        "score_sde": "samplers.score_sde:ScoreSDE",
        "singlestep_dpm": "samplers.singlestep:SinglestepDPM",
        "unipc": "samplers.unipc:UniPC",
        "flow_heun": "interop.flow:FlowHeun",
        "lower_order_final": "interop.lower_order_final:LowerOrderFinal",
    },
    "NoiseSchedule": {
        "sigmoid": "process.schedules.gamma:Sigmoid",
        "cosine": "process.schedules.gamma:Cosine",
        "linear": "process.schedules.gamma:Linear",
        "ve": "process.schedules.ve:VE",
        "edm": "process.schedules.edm:EDM",
        "flow": "process.schedules.flow:Flow",
        "linear_beta": "process.schedules.beta:LinearBeta",
        "scaled_linear_beta": "process.schedules.beta:ScaledLinearBeta",
        "squaredcos_beta": "process.schedules.beta:SquaredCosBeta",
        "betas": "process.schedules.beta:Betas",
        "scaled": "process.schedules.base:Scaled",
    },
    "Objective": {
        "v": "process.objectives:V",
        "x0": "process.objectives:X0",
        "eps": "process.objectives:Eps",
        "previous_x": "process.objectives:PreviousX",
        "score": "process.objectives:Score",
        "velocity": "process.objectives:Velocity",
        "edm": "process.objectives:Preconditioned",
        "negated_eps": "process.objectives:NegatedEps",
    },
    "TimeInput": {
        "unit": "denoisers.preconditioning:UnitTime",
        "steps": "denoisers.preconditioning:StepTime",
        "log_snr": "denoisers.preconditioning:LogSNRTime",
        "c_noise": "denoisers.preconditioning:CNoise",
    },
    "InputScaling": {
        "unscaled": "denoisers.preconditioning:Unscaled",
        "unit_variance": "denoisers.preconditioning:UnitVariance",
        "measured_variance": "denoisers.preconditioning:MeasuredVariance",
    },
    "Loss": {
        "simple": "losses.simple:SimpleLoss",
        "bound": "losses.variational:VariationalLoss",
        "hybrid": "losses.hybrid:HybridLoss",
    },
    "LossWeight": {
        "min_snr": "losses.weights:MinSNR",
        "soft_min_snr": "losses.weights:SoftMinSNR",
        "p2": "losses.weights:P2",
        "edm": "losses.weights:EDMWeight",
        "uniform": "losses.weights:UniformOn",
        "likelihood": "losses.weights:Likelihood",
    },
    "TimeSampler": {
        "uniform": "losses.times:Uniform",
        "stratified": "losses.times:Stratified",
        "steps": "losses.times:Steps",
        "loss_aware": "losses.times:LossAware",
        "log_normal": "losses.times:LogNormal",
        "logit_normal": "losses.times:LogitNormal",
    },
    "Module": {  # networks
        "unet": "models.unet:UNet",
        "dit": "models.dit:DiT",
        "rin": "models.rin:RIN",
        "unet1d": "models.sequence.unet1d:UNet1D",
        "transformer1d": "models.sequence.transformer1d:Transformer1D",
        "residual_mlp": "models.sequence.residual_mlp:ResidualMLP",
    },
    "Trainable": {
        "gaussian_diffusion": "diffusion:GaussianDiffusion",
        "diffusion_policy": "policies.diffusion_policy:DiffusionPolicy",
        "behaviour_cloning": "policies.behaviour_cloning:BehaviourCloning",
    },
    "TrainingDataset": {
        "image_folder": "data.images.folder:ImageFolder",
        "shards": "data.shards.shards:Shards",
        "idx": "data.images.idx:IDX",
        "digits": "data.images.digits:Digits",
        "episode_windows": "policies.windows:EpisodeWindows",
        "fork_demonstrations": "policies.tasks.fork:ForkDemonstrations",
    },
    "DataSpace": {
        "images": "spaces.images:ImageSpace",
        "unbounded": "spaces.unbounded:Unbounded",
        "latents": "spaces.latents:LatentSpace",
        "actions": "spaces.actions:ActionSpace",
    },
    "Conditioner": {
        "labels": "conditions.labels:Labels",
        "images": "conditions.images:Images",
        "vectors": "conditions.vectors:Vectors",
        "tokens": "conditions.tokens:Tokens",
        "observations": "conditions.observations:Observations",
    },
    "Normalizer": {"normalizer": "spaces.normalizer:Normalizer"},
}
"""Kind -> name -> module:Class. All that a file can name without being trusted."""

NOUNS = {
    "Sampler": "sampler",
    "NoiseSchedule": "noise schedule",
    "Objective": "objective",
    "TimeInput": "time input",
    "InputScaling": "input scaling",
    "Loss": "loss",
    "LossWeight": "loss weight",
    "TimeSampler": "time sampler",
    "Module": "network",
    "Trainable": "model",
    "DataSpace": "data space",
    "Conditioner": "conditioner",
    "TrainingDataset": "dataset",
    "ImageDataset": "dataset of images",
}


class BadPart(ValueError):
    """A name, an option or a value that the user can mend; the message is one line."""


class NotTrusted(BadPart):
    """A file names a class of a package that the user has not trusted. `package` is its name."""

    def __init__(self, message: str, package: str) -> None:
        super().__init__(message)
        self.package = package


class Typed(str):
    """A word of a command line, not read yet. It may name any class; no file can hold one."""


def fold(name: str) -> str:
    """Returns a name without underscores and capitals, as `dpmsolver` for `DPM_Solver`."""
    return name.replace("_", "").lower()


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean X?' with the nearest known name, or else a list of the names."""
    known = list(known)
    if close := difflib.get_close_matches(fold(word[:80]), [fold(k) for k in known], 1, 0.6):
        return f" Did you mean {next(k for k in known if fold(k) == close[0])}?"
    return f" There are {', '.join(known)}." if 0 < len(known) <= 20 else ""


def noun(kind: type) -> str:
    """What an error calls a part of this kind."""
    return NOUNS.get(kind.__name__, kind.__name__)


def parts_of(kind: type) -> list[tuple[str, type]]:
    """Names and classes of the parts that are a `kind`; imports them."""
    parts = [(name, _load(home)) for row in TABLE.values() for name, home in row.items()]
    return [(name, cls) for name, cls in parts if issubclass(cls, kind)]


def names_of(kind: type) -> list[str]:
    """Class names of the parts that are a `kind`."""
    return [cls.__name__ for _, cls in parts_of(kind)]


def is_named(kind: type) -> bool:
    """Whether parts of this kind have names in the table."""
    return bool(parts_of(kind))


def name_in_table(cls: type) -> str | None:
    """The name that the table has for a class."""
    homes = {
        f"{PACKAGE}.{home.replace(':', '.')}": name
        for row in TABLE.values()
        for name, home in row.items()
    }
    return homes.get(f"{cls.__module__}.{cls.__qualname__}")


def find(name: Any, kind: type, trust: Collection[str] = (), where: str = "") -> type:
    """The class that a name stands for: a part of the table, or an import path.

    Args:
        name: A name of the table or of a class, in any case of letters; of a path within this
            package only the last word counts. Other import paths need `Typed` or `trust`.
        kind: The class that the result must be derived from.
        trust: Top-level packages whose classes a file may name.
        where: Place of the name, for the error.

    Raises:
        BadPart: no such class, or of another kind.
        NotTrusted: a class of another package.
    """
    if (
        not isinstance(name, str)
        or len(name) > 300
        or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name)
    ):
        raise BadPart(f"{where}: {name!r:.60} is not the name of a class.")
    root, last = name.split(".")[0], name.split(".")[-1]
    if "." not in name or root == PACKAGE:
        return _in_table(last, kind, where)
    if root == "__main__" and not isinstance(name, Typed):
        raise BadPart(
            f"{where}: {last:.60} is a class of the script that saved it. Fix: open it from Python "
            f"with model=, or "
            "move the class to a module of its own."
        )
    if not isinstance(name, Typed) and root not in trust:
        raise NotTrusted(
            f"{where}: {name:.80} is not part of this package, and opening it runs code of "
            f"{root:.40}.",
            root,
        )
    cls = _import(name, where)
    if not isinstance(cls, type) or not issubclass(cls, kind) or inspect.isabstract(cls):
        raise BadPart(
            f"{where}: expected a {noun(kind)}, got {name:.80}.{nearest(last, names_of(kind))}"
        )
    if not isinstance(name, Typed) and cls.__module__.split(".")[0] not in (*trust, PACKAGE):
        raise BadPart(f"{where}: {name:.80} comes from {cls.__module__}, which is not trusted.")
    return cls


def _in_table(name: str, kind: type, where: str) -> type:
    """The class of a row whose name or class is called so, if it is a `kind`.

    Or the kind itself.
    """
    if (
        kind.__module__.split(".")[0] == PACKAGE
        and fold(name) == fold(kind.__name__)
        and not inspect.isabstract(kind)
    ):
        return kind
    for row in TABLE.values():
        for key, home in row.items():
            if fold(name) in (fold(key), fold(home.split(":")[1])) and issubclass(
                cls := _load(home), kind
            ):
                return cls
    raise BadPart(f"{where}: there is no {noun(kind)} {name!r:.60}.{nearest(name, names_of(kind))}")


def _load(home: str) -> type:
    """The class of a row of the table."""
    module, name = home.split(":")
    cls: type = getattr(import_module(f"{PACKAGE}.{module}"), name)
    return cls


def _import(path: str, where: str) -> Any:
    """What an import path names; the current folder is searched last, and only now."""
    module, _, name = path.rpartition(".")
    with _current_folder():
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise BadPart(
                f"{where}: cannot import {path:.80} ({' '.join(str(error).split()):.200})."
            ) from error


@contextmanager
def _current_folder() -> Iterator[None]:
    """The current folder at the end of the search path, and afterwards not."""
    sys.path.append("")
    try:
        yield
    finally:
        if "" in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index("")]
