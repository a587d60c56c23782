"""Guidance: rules that make guided denoisers. One file a kind."""

from .base import Guidance
from .classifier_free import ClassifierFree

__all__ = ["ClassifierFree", "Guidance"]
