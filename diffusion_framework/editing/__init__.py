"""Editing of data with a diffusion model, with one file for each task."""

from .interpolation import interpolate, slerp
from .inversion import decode, invert, walk_back

__all__ = ["decode", "interpolate", "invert", "slerp", "walk_back"]
