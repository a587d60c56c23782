"""Checkpoints on disk, each a folder that is either complete or absent.

A folder is written under a temporary name, sealed by a manifest and then renamed:

    results/checkpoints/step-00001000/
        model.safetensors  ema.safetensors  optimizer.safetensors    tensors
        config.yaml                          all options that the run was built from
        state.json                           other data that resuming needs
        manifest.json                        version, sizes and checksums; written last

Reading a checkpoint never unpickles. Its config may name only parts of this package (see `parts`)
and classes of packages that the caller trusts; nothing else is imported.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor, nn

from ..parts import Kept, find, plan, read_yaml
from .building import build_fitting
from .manifest import MANIFEST, DamagedCheckpoint, read_manifest
from .pretrained import named_folder
from .reading import check_regular, read_file

T = TypeVar("T", bound=nn.Module)
CHECKPOINTS = "checkpoints"
SNAPSHOTS = "ema"  # of averaged weights, see post_hoc_ema.py
PREFIX = "step-"
CONFIG, STATE = "config.yaml", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint folder.

    The sizes of its files are checked on opening, their checksums on reading.

    Attributes:
        path: Folder of the checkpoint.
        step: Number of optimizer steps done.
        files: Size in bytes and SHA-256 of each file, by name.
    """

    path: Path
    step: int
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Returns the checkpoint at a path, or the newest one of a results folder, for its weights.

        Files of weights, of the optimizer and of the training state may have been deleted.

        Args:
            path: Checkpoint folder, results folder of a run, or the name of a packaged model.

        Raises:
            ValueError: If no checkpoint exists, or it is damaged or has a newer format.
        """
        path = named_folder(path)
        if (path / MANIFEST).is_file():
            return cls.open(path, complete=False)
        found = list_checkpoints(path)
        if not found:
            raise ValueError(
                f"{path}: expected a results folder, a checkpoint or an export, got no checkpoint. "
                "Fix: give the folder that a training run or save_pretrained wrote."
            )
        return cls.open(found[-1], complete=False)

    @classmethod
    def open(cls, path: Path, *, complete: bool = True) -> Checkpoint:
        """Returns the checkpoint in exactly this folder.

        Args:
            path: Checkpoint folder.
            complete: Whether all files must exist, as resuming requires, or only the config.

        Raises:
            ValueError: If no checkpoint exists, or it is damaged or has a newer format.
        """
        manifest = read_manifest(path)
        for name, expected in manifest.files.items():
            if not complete and name != CONFIG and not (path / name).exists():
                continue
            if not (path / name).is_file() or (path / name).stat().st_size != expected["size"]:
                raise DamagedCheckpoint(path, f"{name} is missing or truncated")
        return cls(path, manifest.step, manifest.files)

    @property
    def config(self) -> dict[str, Any]:
        """All options that the run was built from, as plain data."""
        config = read_yaml(self._read("config.yaml"), f"{self.path / 'config.yaml'}")
        if not isinstance(config, dict):
            raise DamagedCheckpoint(self.path, "config.yaml has no options")
        return config

    @property
    def state(self) -> dict[str, Any]:
        """Data that resuming needs besides the tensors, as plain data."""
        data = self._read("state.json")
        try:
            state = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DamagedCheckpoint(self.path, "state.json is not JSON") from error
        if not isinstance(state, dict):
            raise DamagedCheckpoint(self.path, "state.json has no state")
        return state

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, ... of the training data; empty if unknown."""
        has_state = STATE in self.files and (self.path / STATE).is_file()
        names = self.state.get("class_names") if has_state else None
        return [str(name) for name in names] if isinstance(names, list) else []

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Returns the tensors of the file `name`.safetensors, on the CPU.

        Raises:
            ValueError: If the file is missing or damaged.
        """
        if name not in (found := self.kinds()):
            raise ValueError(
                f"{self.path}: expected weights among {', '.join(found)}, got {name!r}. "
                "Fix: choose one of these."
            )
        data = self._read(f"{name}.safetensors")
        try:
            return load(data)
        except SafetensorError as error:
            raise DamagedCheckpoint(self.path, f"{name}.safetensors holds no tensors") from error

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the tensors of a file by name, without reading the tensors.

        Raises:
            ValueError: If the file is missing or damaged. Its checksum is not compared.
        """
        path = self.path / f"{name}.safetensors"
        try:
            check_regular(path)
            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                return {key: tuple(file.get_slice(key).get_shape()) for key in names}
        except (OSError, SafetensorError) as error:
            raise DamagedCheckpoint(self.path, f"{path.name} holds no tensors") from error

    def choose(self, weights: str) -> str:
        """Returns the name of the tensors to load: `weights`, or the only one in an export."""
        kinds = self._kinds()
        return kinds[0] if len(kinds) == 1 else weights

    def kinds(self) -> list[str]:
        """Returns the names of the files of tensors that exist, without suffix."""
        return [kind for kind in self._kinds() if (self.path / f"{kind}.safetensors").is_file()]

    def _kinds(self) -> list[str]:
        """Returns the names of the files of tensors, without suffix, in the manifest."""
        suffix = ".safetensors"
        return sorted(file.removesuffix(suffix) for file in self.files if file.endswith(suffix))

    def verify(self) -> None:
        """Checks the checksums of all files.

        Raises:
            ValueError: If a file differs from what was written.
        """
        for name in self.files:
            self._read(name)

    def _read(self, name: str) -> bytes:
        if name not in self.files:
            raise DamagedCheckpoint(self.path, f"its manifest does not name {name}")
        data = read_file(self.path / name)
        if hashlib.sha256(data).hexdigest() != self.files[name]["sha256"]:
            raise DamagedCheckpoint(self.path, f"the checksum of {name} differs")
        return data

    def build(
        self,
        part: str,
        kind: type[T],
        tensors: Mapping[str, Tensor],
        trust: Collection[str] = (),
        **given: Any,
    ) -> T:
        """Builds a module from the config and loads its weights, on the CPU.

        The module is first built on the meta device, without memory for its weights, and compared
        with the tensors. It is built on the CPU only if they fit.

        Args:
            part: Key of the module's description in the config.
            kind: Class that the module must be an instance of.
            tensors: Weights by name, such as those of `open_weights`.
            trust: Packages whose classes the config may name, as in `parts.plan`.
            given: Objects that replace parts of the config, such as model=. The attribute
                `replaceable` of the module's class has the place of each.

        Raises:
            ValueError: If the config does not fit the signatures, or the weights do not fit the
                module.
        """
        where = f"{self.path / 'config.yaml'}: {part}"
        if not isinstance((description := self.config.get(part)), dict):
            raise DamagedCheckpoint(self.path, f"config.yaml has no {part}")
        recorded = str(description.get("class_path", "")).split(".")[-1]
        if not inspect.isabstract(kind) and recorded != kind.__name__:
            raise ValueError(
                f"{self.path}: expected a {kind.__name__}, got a {recorded:.60}. "
                f"Fix: open it with {recorded:.60}.from_pretrained."
            )
        cls: Any = find(description.get("class_path"), kind, trust, where)
        for name, value in given.items():
            self._replace(description, cls.replaceable[name], Kept(value))
        planned = plan(description, kind, trust=trust, where=where)
        module: Any = build_fitting(planned, tensors, str(self.path))
        self.load_into(module, tensors)
        return module

    def _replace(self, description: dict[str, Any], place: str, value: Kept) -> None:
        """Puts an object at a place such as 'model.space' in the description of a part."""
        *outer, name = place.split(".")
        try:
            for key in outer:
                description = description["init_args"][key]
            description["init_args"][name] = value
        except (KeyError, TypeError) as error:
            raise DamagedCheckpoint(self.path, f"config.yaml has no place for {name}") from error

    def load_into(self, module: nn.Module, tensors: Mapping[str, Any]) -> None:
        """Loads tensors by name into a module.

        Raises:
            ValueError: If names or shapes do not fit the module.
        """
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(
                f"{self.path}: expected weights that fit the model, got an error "
                f"({' '.join(str(error).split())[:300]}). "
                "Fix: build the model from the config of the checkpoint."
            ) from error


def list_checkpoints(results_folder: str | os.PathLike[str], kind: str = CHECKPOINTS) -> list[Path]:
    """Returns the folders of the checkpoints of a run, damaged ones too, oldest first."""
    steps = {}
    for folder in (Path(results_folder) / kind).glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX)
        if number.isdecimal() and folder.is_dir():
            steps[int(number)] = folder
    return [steps[step] for step in sorted(steps)]


def step_of(checkpoint: Path) -> int:
    """Returns the number of optimizer steps in the name of a checkpoint folder."""
    return int(checkpoint.name.removeprefix(PREFIX))


def newest_whole_checkpoint(results_folder: str | os.PathLike[str]) -> Checkpoint:
    """Returns the newest undamaged checkpoint of a run, and warns of newer damaged ones.

    Raises:
        ValueError: If no undamaged checkpoint exists.
    """
    for path in reversed(list_checkpoints(results_folder)):
        try:
            checkpoint = Checkpoint.open(path)
            checkpoint.verify()
        except DamagedCheckpoint as error:
            warnings.warn(f"{error} The previous checkpoint is used instead.", stacklevel=2)
        else:
            return checkpoint
    raise ValueError(
        f"{results_folder}: expected an undamaged checkpoint, got none. "
        "Fix: train again in another results_folder."
    )
