"""The commands of scripts/, one file each."""

from .evaluate import evaluate
from .rollout import rollout
from .sample import sample
from .train import train

__all__ = ["evaluate", "rollout", "sample", "train"]
