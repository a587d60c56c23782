"""How likely a model finds images, in bits per dimension: by the variational bound, and by the probability flow."""

from .bound import Bound, variational_bound
from .flow import Trace, flow_bits_per_dim
from .report import check_plot, mean_and_error, plot_bounds, write_bound

__all__ = [
    "Bound",
    "Trace",
    "check_plot",
    "flow_bits_per_dim",
    "mean_and_error",
    "plot_bounds",
    "variational_bound",
    "write_bound",
]
