"""The folder of recipes: YAML files of whole runs, packaged with the library."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def recipe_folder() -> Path:
    """Returns the folder of recipes: the package's own, or `configs/` of a clone."""
    packaged = _PACKAGE / "configs"  # the wheel has it, a clone does not
    return packaged if packaged.is_dir() else _PACKAGE.parent / "configs"
