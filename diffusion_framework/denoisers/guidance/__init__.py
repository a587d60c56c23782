"""Guidance: rules that make guided denoisers. One file a kind."""

from .base import Guidance
from .classifier_free import ClassifierFree, as_guidance

__all__ = ["ClassifierFree", "Guidance", "as_guidance"]
