"""Changing data rather than drawing it anew: functions of a diffusion. One file a task."""

from .interpolation import interpolate, slerp
from .inversion import decode, invert, walk_back

__all__ = ["decode", "interpolate", "invert", "slerp", "walk_back"]
