"""Packages that one command needs, installed with an extra of this package."""

from __future__ import annotations

from importlib import import_module
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
    "zarr": "policy",
}


class MissingPackage(ValueError):
    """A package of an extra that is not installed, or that cannot be imported."""


def require(package: str, purpose: str) -> ModuleType:
    """Imports a package of an extra.

    Args:
        package: Name of the package in `EXTRAS`.
        purpose: Noun phrase for what needs the package, for the error.

    Returns:
        The imported module.

    Raises:
        MissingPackage: If it is not installed or fails to import.
    """
    try:
        return import_module(package)
    except Exception as error:  # a broken installation raises anything
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        got = "none" if missing else one_line(error)
        raise MissingPackage(
            f"Expected the package {package.replace('_', '-')} for {purpose}, got {got}. "
            f"Fix: pip install 'diffusion-framework[{EXTRAS[package]}]'."
        ) from error
