"""What is installed by default, and what an extra brings."""

import ast
import re
import sys
from pathlib import Path

import pytest

import diffusion_framework
from diffusion_framework.parts.extras import EXTRAS, MissingPackage, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(diffusion_framework.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
OTHER_NAMES = {"pillow": "PIL", "pyyaml": "yaml"}


def modules(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w-]+", line).group() for line in requirements)
    return {OTHER_NAMES.get(name, name.replace("-", "_")) for name in names}


def imports(tree: ast.AST) -> dict[str, bool]:
    """Returns the packages that a file imports, and whether only for its type checker."""
    checked = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = {}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        for name in names:
            root = name.partition(".")[0]
            found[root] = found.get(root, True) and node in checked
    return found


TREES = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
REQUIRED = {
    path: set(re.findall(r'(?:require|check_installed)\(\s*"(\w+)"', path.read_text()))
    for path in TREES
}
AFTER = {  # files that only a file that asks imports
    "policies/tasks/fork_environment.py": "policies/rollout.py",
    "training/curves.py": "evaluation/report.py",  # draws no curves without matplotlib
}


def test_a_package_is_a_dependency_or_asked_for_with_its_extra():
    always = modules(PROJECT["dependencies"]) | sys.stdlib_module_names | {"diffusion_framework"}
    used = set()
    for path, tree in TREES.items():
        found = {name for name, for_types in imports(tree).items() if not for_types}
        asking = PACKAGE / AFTER.get(path.relative_to(PACKAGE).as_posix(), path)
        assert found - always <= REQUIRED[asking], path
        used |= found | REQUIRED[path]
    assert not modules(PROJECT["dependencies"]) - used, "dependencies that no file imports"
    assert set(EXTRAS) <= used


def test_each_extra_brings_its_packages():
    extras = PROJECT["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert package in modules(extras[extra]), package
        assert re.search(rf"\[.*\b{extra}\b.*\]", extras["all"][0]), extra


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_is_named_with_its_extra_in_one_line(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage) as error:
        require(package, "a test")
    name, extra = package.replace("_", "-"), EXTRAS[package]
    assert str(error.value) == (
        f"Expected the package {name} for a test, got none. "
        f"Fix: pip install 'diffusion-framework[{extra}]'."
    )


def test_a_package_that_does_not_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "zarr.py").write_text("import a_library_of_zarr\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "zarr", raising=False)
    with pytest.raises(MissingPackage, match=r"got No module named 'a_library_of_zarr'\. Fix: "):
        require("zarr", "a test")
