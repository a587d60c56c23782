"""Checkpoints on disk: a folder written aside, sealed by a manifest and renamed, so that it is whole or not there.

    results/checkpoints/step-00001000/
        model.safetensors  ema.safetensors  optimizer.safetensors    tensors
        config.yaml                                                  everything the run was built from
        state.json                                                   what resuming needs beside the tensors
        manifest.json                                                written last: version, sizes, checksums

Reading one unpickles nothing. Building a model from its config imports only classes of the kinds that are asked for.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load
from torch import Tensor, nn

from ..parts import plan, read_yaml
from .building import build_fitting
from .files import FORMAT_VERSION, sync, write_sealed

T = TypeVar("T", bound=nn.Module)
_FOLDER = "checkpoints"
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint folder. Sizes of its files are checked when it is opened, every bit when read."""

    path: Path
    step: int
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """The checkpoint at `path`, or the newest below it if that is a results folder.

        Raises:
            ValueError: there is none, or it is damaged or of a newer format.
        """
        path = Path(path)
        if (path / "manifest.json").is_file():
            return cls.open(path)
        found = list_checkpoints(path)
        if not found:
            raise ValueError(
                f"Expected a results folder, a checkpoint or an export, got no checkpoint at {path}. Fix: give the "
                "folder that a training run or save_pretrained wrote."
            )
        return cls.open(found[-1])

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """The checkpoint in exactly this folder. Raises ValueError as `find` does."""
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            version, step, files = manifest["format_version"], manifest["step"], manifest["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, f"its manifest cannot be read ({error})") from error
        if version > FORMAT_VERSION:
            raise ValueError(
                f"checkpoint {path} has format {version}, this version reads up to {FORMAT_VERSION}: "
                "upgrade diffusion_framework"
            )
        for name, expected in files.items():
            if Path(name).name != name:  # nothing outside of the folder is looked at
                raise _damaged(path, f"its manifest names the file {name!r:.60}")
            if not (path / name).is_file() or (path / name).stat().st_size != expected["size"]:
                raise _damaged(path, f"{name} is missing or cut off")
        return cls(path, step, files)

    @property
    def config(self) -> dict[str, Any]:
        """What the run was built from, as plain data."""
        config = read_yaml(self._read("config.yaml"), f"{self.path / 'config.yaml'}")
        if not isinstance(config, dict):
            raise _damaged(self.path, "config.yaml holds no options")
        return config

    @property
    def state(self) -> dict[str, Any]:
        """What resuming needs beside the tensors, as plain data."""
        return json.loads(self._read("state.json"))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of `name`.safetensors, on the CPU. Raises ValueError if it is not there, or damaged."""
        if f"{name}.safetensors" not in self.files:
            there = sorted(file.removesuffix(".safetensors") for file in self.files if file.endswith(".safetensors"))
            raise ValueError(f"checkpoint {self.path} holds no {name!r}; it holds {', '.join(there)}")
        return load(self._read(f"{name}.safetensors"))

    def choose(self, weights: str) -> str:
        """Name of the tensors to take: those asked for, or the only ones of an export."""
        kinds = [file.removesuffix(".safetensors") for file in self.files if file.endswith(".safetensors")]
        return kinds[0] if len(kinds) == 1 else weights

    def verify(self) -> None:
        """Raise ValueError unless every bit of every file is what was written."""
        for name in self.files:
            self._read(name)

    def _read(self, name: str) -> bytes:
        data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.files[name]["sha256"]:
            raise _damaged(self.path, f"{name} is not what was written")
        return data

    def build(self, part: str, kind: type[T], weights: str, trust: Collection[str] = (), **given: Any) -> T:
        """The module that the config describes, with its weights, on the CPU.

        It is made on the meta device first, and compared with the tensors of the file: a config
        that asks for more takes no memory.

        Args:
            part: Key of its description in the config.
            kind: The class that it must be derived from.
            weights: Name of the tensors.
            trust: As for `parts.plan`.
            given: Arguments in place of those in the config.

        Raises:
            ValueError: a config that does not fit the signatures, or weights that do not fit it.
        """
        tensors = self.tensors(weights)
        where = f"{self.path / 'config.yaml'}: {part}"
        if not isinstance((config := self.config).get(part), dict):
            raise _damaged(self.path, f"config.yaml holds no {part}")
        recorded = str(config[part].get("class_path", "")).split(".")[-1]
        if not inspect.isabstract(kind) and recorded != kind.__name__:
            raise ValueError(
                f"Expected a {kind.__name__} in {self.path}, got a {recorded:.60}. Fix: {recorded:.60}.from_pretrained."
            )
        planned = plan(config[part], kind, trust=trust, where=where, given=dict.fromkeys(given, "the call."))
        module: Any = build_fitting(planned, tensors, str(self.path), **given)
        self.load_weights(module, weights)
        return module

    def load_weights(self, module: nn.Module, name: str, adapt: Callable[[dict[str, Tensor]], Any] = dict) -> None:
        """Load `name`.safetensors, as `adapt` changes it, into the module. Raises ValueError if it does not fit."""
        try:
            module.load_state_dict(adapt(self.tensors(name)))
        except RuntimeError as error:
            raise ValueError(
                f"the weights of {self.path} do not fit this model: {' '.join(str(error).split())[:300]}"
            ) from error


def list_checkpoints(results_folder: str | os.PathLike[str]) -> list[Path]:
    """The sealed checkpoints of a run, oldest first."""
    steps = {}
    for folder in (Path(results_folder) / _FOLDER).glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX)
        if number.isdecimal() and (folder / "manifest.json").is_file():
            steps[int(number)] = folder
    return [steps[step] for step in sorted(steps)]


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's folder is named for."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def newest_whole_checkpoint(results_folder: str | os.PathLike[str]) -> Checkpoint:
    """The newest checkpoint of a run that is not damaged, with a warning for each newer one that is.

    Raises:
        ValueError: there is none.
    """
    for path in reversed(list_checkpoints(results_folder)):
        try:
            checkpoint = Checkpoint.open(path)
            checkpoint.verify()
        except ValueError as error:
            warnings.warn(f"{error}: going back to the one before", stacklevel=2)
        else:
            return checkpoint
    raise ValueError(f"no undamaged checkpoint in {results_folder}; train anew in another results_folder")


def write_checkpoint(
    results_folder: str | os.PathLike[str],
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    keep: int,
    spare: Collection[int] = (),
) -> Path:
    """Write a checkpoint, then prune all but the `keep` newest up to this one and the steps in `spare`.

    Returns its folder.

    Later ones are left alone and not counted: a run only comes to an earlier step where they are damaged.

    Raises:
        OSError: it could not be written; the ones before are as they were, and nothing is left of this one.
    """
    parent = Path(results_folder) / _FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(".tmp-*"):
        shutil.rmtree(leftover)
    aside, final = parent / f".tmp-{step:08d}", parent / f"{_PREFIX}{step:08d}"
    try:
        write_sealed(aside, step, tensors, config, state)
        if final.exists():  # only a resumed run that started from an older checkpoint comes by here again
            _remove(final)
        aside.rename(final)
        sync(parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    checkpoints = list_checkpoints(results_folder)
    for old in checkpoints[: checkpoints.index(final) + 1][:-keep]:
        if step_of(old) not in spare:
            _remove(old)
    return final


def write_export(
    folder: str | os.PathLike[str], tensors: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any]
) -> None:
    """Writes a checkpoint of a model alone, which cannot be resumed.

    Args:
        folder: A folder that does not exist yet.
        tensors: Groups of tensors by name.
        config: What the model is built from.

    Raises:
        ValueError: the folder exists.
        OSError: it could not be written; then it does not exist.
    """
    final = Path(folder)
    if final.exists():
        raise ValueError(f"Expected a new folder, got {final}, which exists. Fix: choose another.")
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".tmp-{final.name}")
    try:
        write_sealed(aside, 0, tensors, config, {})
        aside.rename(final)
        sync(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint; killed in between, what is left of it is none, and goes with the next save."""
    aside = checkpoint.with_name(f".tmp-old-{checkpoint.name}")
    checkpoint.rename(aside)
    shutil.rmtree(aside)


def check_space(results_folder: str | os.PathLike[str], size: int, count: int) -> None:
    """Raise ValueError if the disk has no room for this many new checkpoints of `size` bytes. Writes nothing."""
    folder = Path(results_folder).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size * count:
        raise ValueError(
            f"{count} checkpoints of {size / 1e9:.3g} GB need {size * count / 1e9:.3g} GB; {folder} has "
            f"{free / 1e9:.3g} GB free: make room, or lower saving.keep_newest"
        )


def _damaged(path: Path, how: str) -> ValueError:
    return ValueError(f"checkpoint {path} is damaged: {how}; use an older checkpoint")
