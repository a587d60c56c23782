"""Packages that one command needs, installed with an extra of this package."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from .errors import one_line

EXTRAS = {  # package: the extra that installs it
    "fsspec": "shards",
    "gymnasium": "policy",
    "matplotlib": "evaluation",
    "onnxruntime": "features",
    "pyarrow": "policy",
    "tifffile": "tiff",
    "torch_fidelity": "features",
    "transformers": "text",
    "zarr": "policy",
}


class MissingPackage(ValueError):
    """A package of an extra that is not installed, or that cannot be imported."""


def check_installed(package: str, purpose: str) -> None:
    """Checks that a package of an extra is installed, without importing it.

    Args:
        package: Name of the package in `EXTRAS`.
        purpose: Noun phrase for what needs the package, for the error.

    Raises:
        MissingPackage: If it is not installed.
    """
    if find_spec(package) is None:
        raise _missing(package, purpose, "none")


def require(package: str, purpose: str) -> ModuleType:
    """Imports a package of an extra, as `check_installed` checks it.

    Raises:
        MissingPackage: If it is not installed or fails to import.
    """
    check_installed(package, purpose)
    try:
        return import_module(package)
    except Exception as error:  # a broken installation raises anything
        raise _missing(package, purpose, one_line(error)) from error


def _missing(package: str, purpose: str, got: str) -> MissingPackage:
    return MissingPackage(
        f"Expected the package {package.replace('_', '-')} for {purpose}, got {got}. "
        f"Fix: pip install 'diffusion-framework[{EXTRAS[package]}]'."
    )
