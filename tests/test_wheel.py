"""The wheel: what it holds, and that it works outside of a clone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_editable, build_wheel

ROOT = Path(__file__).resolve().parents[1]


def built(build, folder):
    """Builds the project as pip does without build isolation; returns the wheel."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return folder / build(str(folder))
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(build_wheel, tmp_path_factory.mktemp("wheel"))


def tracked(*patterns):
    """Returns the files of the project that belong into a wheel."""
    files = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_its_recipes_and_its_licence(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        about = next(name for name in names if name.endswith("/METADATA"))
        metadata = file.read(about).decode()
    info = about.removesuffix("METADATA")
    recipes = {f"diffusion_framework/{path}" for path in tracked("configs/*.yaml")}
    assert {name for name in names if not name.startswith(info)} == recipes | tracked(
        "diffusion_framework/**/*"
    )
    assert recipes and "diffusion_framework/py.typed" in names
    assert f"{info}licenses/LICENSE" in names
    assert (ROOT / "README.md").read_text() in metadata
    assert "License-Expression: MIT" in metadata and "Requires-Python: >=3.10" in metadata


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path):
    with zipfile.ZipFile(built(build_editable, tmp_path)) as file:
        outside = [name for name in file.namelist() if ".dist-info/" not in name]
        assert len(outside) == 1 and outside[0].endswith(".pth")
        assert Path(file.read(outside[0]).decode().strip()) == ROOT


OUTSIDE = """
import sys
from pathlib import Path
from diffusion_framework import GaussianDiffusion
from diffusion_framework.data import Digits
from diffusion_framework.recipes import recipe_folder

home = Path(sys.argv[1])
assert Path(sys.modules["diffusion_framework"].__file__).is_relative_to(home)
assert recipe_folder() == home / "diffusion_framework" / "configs"
assert (recipe_folder() / "digits.yaml").is_file()
assert len(Digits()) == 1797
"""


def test_an_installed_wheel_works_outside_of_a_clone(wheel, tmp_path):
    home, outside = tmp_path / "installed", tmp_path / "outside"
    outside.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    environment = {**os.environ, "PYTHONPATH": str(home)}
    commands = [
        [*pip, "--target", str(home), str(wheel)],
        [sys.executable, "-m", "diffusion_framework", "--help"],
        [str(home / "bin" / "diffusion"), "--help"],
        [sys.executable, "-c", OUTSIDE, str(home)],
    ]
    printed = []
    for command in commands:
        done = subprocess.run(
            command, cwd=outside, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert "train" in printed[1] and printed[1] == printed[2]
    assert not any(outside.iterdir())
