"""`Vectors`: one vector of numbers for each sample."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import nn

from ..spaces import Unbounded
from .base import Conditioner, Keywords, as_tensor, trained_none


@final
class Vectors(Conditioner):
    """Vectors [batch, dim], each number standardised by its statistics. "None" is a learned vector.

    Takes one vector [dim] for a whole batch, too.

    Args:
        dim: Numbers of a vector.
        statistics: Their means and standard deviations; None fits them to the training data.
        dropout: Share of training samples that are told "none"; above 0 for guidance.
        keyword: The network's keyword.
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
        """[batch, dim], standardised."""
        vectors = as_tensor(value, self.device, "vectors")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"Expected {self.keywords[0]} [batch, {self.dim}], got {[*vectors.shape]}. "
                "Fix: give one vector for each sample."
            )
        return {self.keywords[0]: self.statistics.encode(vectors, {})}

    def none(self, like: Keywords) -> Keywords:
        nothing = trained_none(self.nothing)
        return {keyword: nothing.to(vector).expand_as(vector) for keyword, vector in like.items()}

    @property
    def needs_fit(self) -> bool:
        return self.statistics.needs_fit

    def observe(self, value: Any) -> None:
        self.statistics.observe(as_tensor(value, self.device, "vectors"), {})

    def finish(self) -> None:
        self.statistics.finish()
