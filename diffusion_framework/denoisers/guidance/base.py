"""What guides samples: a rule, and the denoiser that it makes of another."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..base import Denoiser
from ..network import NetworkDenoiser


class Guidance(ABC):
    """A frozen dataclass that makes a guided denoiser, one for each trajectory."""

    @abstractmethod
    def bind(self, denoise: NetworkDenoiser) -> Denoiser:
        """A denoiser that guides this one.

        Args:
            denoise: Told the conditions of the trajectory, with an empty memory.

        Raises:
            ValueError: a network that was not trained for this guidance.
        """
