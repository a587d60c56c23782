"""The one-way order of imports, and what every part promises."""

import ast
import dataclasses
import inspect
import json
import pickle
from pathlib import Path

import pytest
import torch

import diffusion_framework as df
from diffusion_framework.denoisers.preconditioning import InputScaling, TimeInput
from diffusion_framework.losses import Loss, LossWeight, TimeSampler
from diffusion_framework.storage.config import SavedAsJson, from_config, to_config

PACKAGE = Path(df.__file__).parent
# Each layer may import those before it, and its own members.
LAYERS = [
    {"parts"},
    {"storage", "labels"},
    {"process", "spaces", "trainable"},
    {"conditions", "data"},
    {"denoisers", "models"},
    {"losses", "samplers"},
    {"interop", "diffusion"},
    {"editing", "evaluation", "policies"},
    {"training"},
    {"cli"},
]
LAYER_OF = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path):
    """Parts of the package that a file imports, absolutely or relatively."""
    package = ("diffusion_framework", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            stem = base + (node.module.split(".") if node.module else [])
            names = [[*stem, alias.name] for alias in node.names]
        else:
            continue
        yield from (name[1] for name in names if name[0] == "diffusion_framework" and len(name) > 1)


def test_imports_point_one_way():
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 20
    wrong = []
    for path in files:
        for other in imported_parts(path):
            assert part(path) in LAYER_OF, f"{path}: add it to LAYERS"
            if other != part(path) and other in LAYER_OF and LAYER_OF[other] > LAYER_OF[part(path)]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {other}")
    assert not wrong


def test_parts_do_not_import_each_other_in_a_circle():
    edges = {name: set() for name in LAYER_OF}
    for path in PACKAGE.rglob("*.py"):
        if part(path) in edges:
            edges[part(path)] |= {other for other in imported_parts(path) if other in edges and other != part(path)}
    while free := [name for name, others in edges.items() if not others & edges.keys()]:
        for name in free:
            del edges[name]
    assert not edges, f"a circle among {sorted(edges)}"


def test_the_loop_names_no_sampler_and_nothing_dispatches_on_types_of_them():
    names = {c.__name__ for base in (df.Sampler, df.NoiseSchedule, df.Objective) for c in leaves(base)}
    loop = ast.parse((PACKAGE / "samplers" / "base.py").read_text())
    assert not names & {node.id for node in ast.walk(loop) if isinstance(node, ast.Name)}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                assert not asked & (names | {"Sampler", "NoiseSchedule", "Objective"}), f"{path}:{node.lineno}"


def leaves(base):
    """Concrete classes of the package derived from base."""
    found = set()
    for cls in base.__subclasses__():
        found |= leaves(cls)
        if not inspect.isabstract(cls) and cls.__module__.startswith("diffusion_framework"):
            found.add(cls)
    return found


BASES = (df.Sampler, df.NoiseSchedule, df.Objective, LossWeight, Loss, TimeSampler, TimeInput, InputScaling)
PARTS = sorted({c for base in BASES for c in leaves(base)}, key=lambda c: c.__name__)
NEEDED = {"schedule": df.Cosine(), "objective": df.Eps(), "steps": 7}  # others: half


@pytest.mark.parametrize("cls", PARTS, ids=lambda c: c.__name__)
def test_parts_are_frozen_values(cls, tmp_path):
    """Safe to share, compare, print, pickle and write to a config; no device tensors inside."""
    needed = {f.name: NEEDED.get(f.name, 0.5) for f in dataclasses.fields(cls) if _required(f)}
    one, two = cls(**needed), cls(**needed)
    assert one == two and hash(one) == hash(two) and repr(one) == repr(two)
    assert pickle.loads(pickle.dumps(one)) == one
    (base,) = (base for base in BASES if issubclass(cls, base))
    assert from_config(json.loads(json.dumps(to_config(one))), base) == one
    if issubclass(cls, SavedAsJson):
        one.save_pretrained(tmp_path / "new")
        assert cls.from_pretrained(tmp_path / "new") == one
        assert base.from_pretrained(tmp_path / "new") == one
        assert base.from_config(one.to_config()) == one
    assert not any(isinstance(getattr(one, f.name), torch.Tensor) for f in dataclasses.fields(cls))
    if fields := dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, fields[0].name, 1)


def _required(field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def test_samplers_are_short():
    paths = {Path(inspect.getfile(cls)) for cls in leaves(df.Sampler)}
    for path in paths & set((PACKAGE / "samplers").glob("*.py")):
        assert len(path.read_text().splitlines()) <= 90, path


def test_everything_exported_is_documented():
    for name, value in vars(df).items():
        if inspect.isclass(value):
            assert value.__doc__ and not value.__doc__.startswith(f"{name}("), name
