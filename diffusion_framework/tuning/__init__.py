"""Tuning: the best sampler and levels of one trained model for few network calls."""

from .report import plot_tuning, table
from .search import Search, Tuning, tune

__all__ = ["Search", "Tuning", "plot_tuning", "table", "tune"]
