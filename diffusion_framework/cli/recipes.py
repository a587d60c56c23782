"""The command that lists the packaged recipes."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ..parts.search import unknown_name
from ..recipes import recipe_folder
from .help import WIDTH

_COLUMN = 22  # of the names
_AUTO = {
    "trains": "A UNet on a folder of images, with settings for them and the time; the default.",
    "Follows": "no paper; trials at equal time, see scripts/benchmarks/README.md",
}


def recipes() -> None:
    """Lists the recipes: what each trains, what it follows, and its figure measured here.

    `--config NAME` starts from a recipe, and flags override it. `diffusion train --config NAME
    --print_config` prints it with all options.

    Examples:
      diffusion recipes
      diffusion train photos --config edm
    """
    rows = {"auto": _AUTO} | {
        path.stem: _notes(path) for path in sorted(recipe_folder().glob("*.yaml"))
    }
    for name, notes in rows.items():
        lines = [notes["trains"]]
        for key in ("Follows", "Measured"):
            lines += [f"{key.lower()}: {notes.get(key, 'not reproduced here')}"]
        for line in lines:
            for part in textwrap.wrap(line, WIDTH - _COLUMN, subsequent_indent="  "):
                print(f"{name:<{_COLUMN}}{part}")
                name = ""
    print("\ndiffusion train FOLDER --config NAME starts from one of them.")


def recipe_path(name: str) -> Path:
    """Returns the file of a recipe.

    Raises:
        BadPart: If no recipe has the name.
    """
    known = sorted(path.stem for path in recipe_folder().glob("*.yaml"))
    if name not in known:
        raise unknown_name("--config", "a file, or the name of a recipe", name, known)
    return recipe_folder() / f"{name}.yaml"


def _notes(path: Path) -> dict[str, str]:
    """Returns the notes in the comment at the top of a recipe."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").strip()
        key, colon, value = text.partition(": ")
        if colon and key in ("Follows", "Measured"):
            found[key] = value
        found.setdefault("trains", text)
    return found
