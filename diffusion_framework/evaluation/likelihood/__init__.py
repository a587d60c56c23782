"""Likelihood, by the variational bound and by the probability flow."""

from .bits import bits_per_dim, flow_bits_per_dim
from .bound import BoundTerms, variational_bound
from .flow import Trace, flow_bits

__all__ = [
    "BoundTerms",
    "Trace",
    "bits_per_dim",
    "flow_bits",
    "flow_bits_per_dim",
    "variational_bound",
]
