"""Base class of guidance."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..base import Denoiser
from ..network import NetworkDenoiser


class Guidance(ABC):
    """Base class of frozen dataclasses that make a guided denoiser for each trajectory."""

    @abstractmethod
    def bind(self, denoise: NetworkDenoiser) -> Denoiser:
        """Returns a guided version of a denoiser.

        Args:
            denoise: Denoiser under the conditions of the trajectory, with an empty memory.

        Raises:
            ValueError: the network was not trained for this guidance.
        """
