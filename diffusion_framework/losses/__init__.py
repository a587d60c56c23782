"""What training minimises: weights as functions of log-SNR, and the times at which it looks."""

from .times import draw_uniform_times
from .weights import LossWeight, MinSNR, output_weight

__all__ = ["LossWeight", "MinSNR", "draw_uniform_times", "output_weight"]
