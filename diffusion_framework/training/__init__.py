"""Training: the loop and what it writes."""

from .trainer import Trainer

__all__ = ["Trainer"]
