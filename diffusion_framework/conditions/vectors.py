"""`Vectors`, a conditioner for vectors."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import nn

from ..spaces import Unbounded
from .base import Conditioner, Keywords, as_tensor, trained_none


@final
class Vectors(Conditioner):
    """Conditioner for vectors, each component of which is standardised.

    A value has shape [batch, dim]. When sampling, a single vector [dim] is repeated for the batch.
    "None" is a learned vector.

    Args:
        dim: Size of a vector.
        statistics: Mean and standard deviation of each component; None fits them to the training
            data.
        dropout: Share of training samples whose value is replaced by "none"; above 0 for guidance.
        keyword: Keyword of the network for the vectors.
    """

    def __init__(
        self,
        dim: int,
        *,
        statistics: Unbounded | None = None,
        dropout: float = 0.0,
        keyword: str = "vector",
    ) -> None:
        super().__init__((keyword,), dropout)
        self.dim = dim
        self.statistics = statistics if statistics is not None else Unbounded()
        self.statistics.build((dim,))
        self.nothing = nn.Parameter(torch.zeros(dim)) if dropout else None

    def repeat(self, value: Any, batch: int) -> Any:
        vectors = as_tensor(value, self.device, "vectors")
        return vectors.expand(batch, -1) if vectors.ndim == 1 else vectors

    def encode(self, value: Any) -> Keywords:
        """Standardises vectors [batch, dim]."""
        vectors = as_tensor(value, self.device, "vectors")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"Expected {self.keywords[0]} [batch, {self.dim}], got {[*vectors.shape]}. "
                "Fix: pass one vector for each sample."
            )
        return {self.keywords[0]: self.statistics.encode(vectors, {})}

    def none(self, batch: int) -> Keywords:
        return {self.keywords[0]: trained_none(self.nothing).expand(batch, -1)}

    def pictures(self, value: Any) -> list[str]:
        """Returns the first four components of each vector."""
        vectors = as_tensor(value, self.device, "vectors").tolist()
        more = ", ..." if self.dim > 4 else ""
        return [", ".join(f"{number:.3g}" for number in row[:4]) + more for row in vectors]

    @property
    def needs_fit(self) -> bool:
        return self.statistics.needs_fit

    def observe(self, value: Any) -> None:
        self.statistics.observe(as_tensor(value, self.device, "vectors"), {})

    def finish(self) -> None:
        self.statistics.finish()
