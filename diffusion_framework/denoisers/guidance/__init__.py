"""Guidance: classes that make guided denoisers, one file for each kind."""

from .base import Guidance
from .classifier_free import ClassifierFree, as_guidance

__all__ = ["ClassifierFree", "Guidance", "as_guidance"]
