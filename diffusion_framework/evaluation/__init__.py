"""Evaluation of models by their likelihood, and its reports."""

from .likelihood import BoundTerms, bits_per_dim, flow_bits_per_dim, variational_bound
from .report import check_plot, mean_and_error, plot_bounds, write_bound

__all__ = [
    "BoundTerms",
    "bits_per_dim",
    "check_plot",
    "flow_bits_per_dim",
    "mean_and_error",
    "plot_bounds",
    "variational_bound",
    "write_bound",
]
