"""The one-way order of imports, and what every part promises."""

import ast
import builtins
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
import torch

import diffusion_framework as df
from diffusion_framework.denoisers.preconditioning import InputScaling, TimeInput
from diffusion_framework.losses import Loss, LossWeight, TimeSampler
from diffusion_framework.process.objectives import Eps, Objective
from diffusion_framework.process.schedules import NoiseSchedule
from diffusion_framework.samplers import Sampler
from diffusion_framework.storage.config import SavedAsJson, from_config, to_config

PACKAGE = Path(df.__file__).parent
# Each layer may import those before it, and its own members.
LAYERS = [
    {"averaging", "parts", "progress", "recipes"},
    {"storage"},
    {"process", "spaces", "trainable"},
    {"conditions", "data"},
    {"denoisers", "models"},
    {"losses", "samplers"},
    {"interop", "sampling"},
    {"diffusion"},
    {"editing", "evaluation", "policies", "tuning"},
    {"training"},
    {"cli"},
    {"__main__"},
]
LAYER_OF = {name: i for i, layer in enumerate(LAYERS) for name in layer}


# Files that import each other, to be parted. Every list of exceptions here may only become shorter.
CIRCLES: set[str] = set()
# Concrete classes that others may derive from.
DERIVED_FROM = {
    "RecordsArguments",  # a mixin
    "SavedAsJson",  # a mixin
    "KeepsStatistics",  # a mixin
    "BadPart",  # an error, caught with its subclass
}
# Files that ask objects for attributes by name.
ASKING = {
    "data/wrapped.py",  # the door where datasets are wrapped
    "denoisers/signature.py",  # the door where networks are read
    "data/images/decode.py",  # Pillow's images, open files
    "data/loading/cache.py",  # the operating system
    "parts/hints.py",  # type hints
    "parts/plan.py",  # fields of a dataclass
    "parts/signatures.py",  # docstrings
    "parts/search.py",  # classes of a module
    "storage/config.py",  # fields of a dataclass, classes of a module
    "training/distributed.py",  # sharded tensors
    "training/signals.py",  # the operating system
}
LONG_FILES: set[str] = set()
LONG_FUNCTIONS = {
    "diffusion.py: __init__",
    "sampling.py: walk",
    "models/sequence/unet1d.py: __init__",
    "models/unet.py: __init__",
    "training/trainer.py: __init__",
}
# Functions whose errors are caught inside the package, or extend an error that has a remedy.
WITHOUT_REMEDY = {
    "data/images/limits.py: check_pixels",
    "data/images/decode.py: decode_image",
    "data/images/encoded.py: _skip",
    "data/images/planes.py: _read_tiff",
    "data/images/planes.py: decode_planes",
    "data/loading/handover.py: _check_room",
    "data/loading/placement.py: _make_file",
    "data/shards/tar_index.py: _members",
}
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_file(parts: list[str]) -> Path | None:
    """The file of a module of the package."""
    stem = PACKAGE.parent.joinpath(*parts)
    return next(
        (path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path in TREES), None
    )


def imported(path: Path) -> set[Path]:
    """Returns the files of the package that a file imports, for its type checker too."""
    package, found = path.relative_to(PACKAGE.parent).parent.parts, set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {module_file(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            found |= {module_file([*base, alias.name]) or module_file(base) for alias in node.names}
    return found - {None, path}


def test_imports_point_one_way():
    assert len(FILES) > 20
    wrong = []
    for path in set(FILES) - {PACKAGE / "__init__.py"}:
        assert room(path) in LAYER_OF, f"{name(path)}: add its room to LAYERS"
        above = [
            other
            for other in imported(path)
            if LAYER_OF.get(room(other), 99) > LAYER_OF[room(path)]
        ]
        wrong += [f"{name(path)} imports {name(other)}" for other in above]
    assert not wrong


def circle(arrows: dict) -> set:
    """Returns the nodes of a graph that lie on circles, or between two."""
    for _ in range(
        2
    ):  # take away what leads nowhere, then, with all arrows turned round, what nothing leads to
        while ends := [node for node, others in arrows.items() if not others & arrows.keys()]:
            for node in ends:
                del arrows[node]
        arrows = {
            node: {other for other, ours in arrows.items() if node in ours} for node in arrows
        }
    return set(arrows)


def test_no_files_import_each_other_in_a_circle():
    compare({name(path) for path in circle({path: imported(path) for path in FILES})}, CIRCLES)


def test_no_rooms_import_each_other_in_a_circle():
    arrows = {name: set() for name in LAYER_OF}
    for path in set(FILES) - {PACKAGE / "__init__.py"}:
        arrows[room(path)] |= {room(other) for other in imported(path)} - {room(path)}
    assert not circle(arrows)


def compare(found: set[str], exceptions: set[str]) -> None:
    assert not found - exceptions
    assert not exceptions - found, "no longer needed: delete them from the list of exceptions"


def test_classes_are_abstract_or_final():
    modules = [
        import_module(module.name) for module in walk_packages(df.__path__, "diffusion_framework.")
    ]
    classes = {
        value for module in modules for value in vars(module).values() if inspect.isclass(value)
    }
    ours = {cls for cls in classes if cls.__module__.startswith("diffusion_framework")}
    bases = {base for cls in ours for base in cls.__bases__ if base in ours}
    compare({base.__name__ for base in bases if not inspect.isabstract(base)}, DERIVED_FROM)


def test_nobody_asks_models_and_datasets_for_attributes_by_name():
    def asks(tree: ast.AST) -> bool:
        return any(
            isinstance(node, ast.Name) and node.id in ("hasattr", "getattr")
            for node in ast.walk(tree)
        )

    compare({name(path) for path, tree in TREES.items() if asks(tree)}, ASKING)


def test_files_hold_one_thought():
    compare({name(path) for path in FILES if len(path.read_text().splitlines()) > 300}, LONG_FILES)


def test_functions_fit_a_screen():
    """At most 40 lines without the docstring."""
    long = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                docstring = node.body[0] if ast.get_docstring(node) else None
                described = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
                if node.end_lineno - node.lineno + 1 - described > 40:
                    long.add(f"{name(path)}: {node.name}")
    compare(long, LONG_FUNCTIONS)


def literal(node: ast.AST) -> str | None:
    """Returns the literal text in a message, or None for a message made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value for part in node.values if isinstance(part, ast.Constant))
    if isinstance(node, ast.BinOp):
        texts = [text for side in (node.left, node.right) if (text := literal(side)) is not None]
        return "".join(texts) if texts else None
    return None


def test_every_error_has_a_remedy():
    """Users can act on a ValueError, an OSError and the like; other errors are of the code."""
    modules = [
        import_module(module.name) for module in walk_packages(df.__path__, "diffusion_framework.")
    ]
    of_users = (ValueError, OSError, FloatingPointError, RuntimeError, ImportError)
    errors = {
        key
        for module in (builtins, *modules)
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, of_users)
    } - {"NotImplementedError"}
    found = set()
    for path, tree in TREES.items():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and call.args and raised_name(call) in errors:
                    message = literal(call.args[0])
                    if message is not None and "Fix: " not in message:
                        found.add(f"{name(path)}: {function.name}")
    compare(found, WITHOUT_REMEDY)


def raised_name(call: ast.Call) -> str:
    """Returns the name of the called class or function, without its module."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def test_the_loop_names_no_sampler_and_nothing_dispatches_on_types_of_them():
    names = {c.__name__ for base in (Sampler, NoiseSchedule, Objective) for c in leaves(base)}
    loop = TREES[PACKAGE / "samplers" / "base.py"]
    assert not names & {node.id for node in ast.walk(loop) if isinstance(node, ast.Name)}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                assert not asked & (names | {"Sampler", "NoiseSchedule", "Objective"}), (
                    f"{path}:{node.lineno}"
                )


def leaves(base):
    """Concrete classes of the package derived from base."""
    found = set()
    for cls in base.__subclasses__():
        found |= leaves(cls)
        if not inspect.isabstract(cls) and cls.__module__.startswith("diffusion_framework"):
            found.add(cls)
    return found


BASES = (
    Sampler,
    NoiseSchedule,
    Objective,
    LossWeight,
    Loss,
    TimeSampler,
    TimeInput,
    InputScaling,
)
PARTS = sorted({c for base in BASES for c in leaves(base)}, key=lambda c: c.__name__)
NEEDED = {"schedule": df.Cosine(), "objective": Eps(), "steps": 7}  # others: half


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
    paths = {Path(inspect.getfile(cls)) for cls in leaves(Sampler)}
    for path in paths & set((PACKAGE / "samplers").glob("*.py")):
        assert len(path.read_text().splitlines()) <= 110, path


def test_everything_exported_is_documented_and_loaded_when_it_is_used():
    for name in df.__all__:
        value = getattr(df, name)
        assert value.__doc__ and not value.__doc__.startswith(f"{name}("), name
    code = "import sys, diffusion_framework; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_exported_names_are_written_alike_for_python_and_for_editors():
    tree = ast.parse(Path(df.__file__).read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.col_offset == 4
        for alias in node.names
        if alias.name[0].isupper() and alias.name != "TABLE"
    }
    assert seen == df._HOMES
    assert sorted(seen) == sorted(df.__all__)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("Unet", "write UNet"),
        ("Betas", "write from diffusion_framework.process.schedules.beta import Betas"),
        ("Xyzzyqq", r"see dir\(diffusion_framework\)"),
    ],
)
def test_a_missing_name_is_answered_with_the_nearest_one(name, fix):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. Fix: {fix}."):
        getattr(df, name)
