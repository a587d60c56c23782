"""`Tokens`, a conditioner for sequences of embeddings such as those of a text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from .base import Conditioner, Keywords, as_tensor, checked_samples, trained_none
from .text import single_token


@final
class Tokens(Conditioner):
    """Conditioner for sequences of token embeddings, padded to a fixed length.

    A value is a tensor [batch, n, dim], or a mapping of "tokens" [batch, n, dim] and "mask"
    [batch, n], which is False for padding. `Text` takes texts instead. "None" is a single learned
    token.

    Args:
        dim: Size of an embedding.
        length: Largest number of tokens of a sample.
        dropout: Share of training samples whose value is replaced by "none"; above 0 for guidance.
        keyword: Keyword of the network for the embeddings.
        mask_keyword: Keyword of the network for the mask.
    """

    def __init__(
        self,
        dim: int,
        length: int,
        *,
        dropout: float = 0.0,
        keyword: str = "tokens",
        mask_keyword: str = "token_mask",
    ) -> None:
        super().__init__((keyword, mask_keyword), dropout)
        self.dim, self.length = dim, length
        self.nothing = nn.Parameter(torch.zeros(dim)) if dropout else None

    def encode(self, value: Any) -> Keywords:
        """Pads embeddings with zeros to [batch, length, dim], and their mask to [batch, length].

        Raises:
            ValueError: If texts are given, or a shape or dtype differs. On the CPU, also if a
                sample has no token, or an embedding is NaN or infinite.
        """
        tokens, mask = self._parts(value)
        if tokens.ndim != 3 or tokens.shape[2] != self.dim or tokens.shape[1] > self.length:
            raise ValueError(
                f"Expected embeddings [batch, at most {self.length}, {self.dim}], got "
                f"{[*tokens.shape]}. Fix: truncate them, or build Tokens with their dim and length."
            )
        if mask.shape != tokens.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"Expected a mask {[*tokens.shape[:2]]} of torch.bool, got {[*mask.shape]} of "
                f"{mask.dtype}. Fix: pass a mask that is True for tokens and False for padding."
            )
        checked_samples(
            mask,
            mask.any(dim=1, keepdim=True),
            "at least one token",
            "keep a start token in each sequence",
        )
        checked_samples(
            tokens, torch.isfinite(tokens), "finite embeddings", "check the encoder that made them"
        )
        padding = self.length - tokens.shape[1]
        tokens = nn.functional.pad(tokens * mask[:, :, None], (0, 0, 0, padding))
        return dict(
            zip(self.keywords, (tokens, nn.functional.pad(mask, (0, padding))), strict=True)
        )

    def none(self, batch: int) -> Keywords:
        return single_token(trained_none(self.nothing), self.keywords, batch, self.length)

    def _parts(self, value: Any) -> tuple[Tensor, Tensor]:
        """Returns the embeddings as floats, and their mask."""
        given = value if isinstance(value, Mapping) else {"tokens": value}
        tokens = given.get("tokens")
        first = tokens[0] if isinstance(tokens, list | tuple) and tokens else tokens
        if tokens is None or isinstance(first, str):
            raise ValueError(
                f"Expected embeddings [batch, n, {self.dim}], got {first!r:.40}. "
                "Fix: use Text or PretrainedText for texts, or encode them first, as "
                "text_encoder(**tokenizer(texts)).last_hidden_state."
            )
        tokens = as_tensor(tokens, self.device, "embeddings")
        tokens = tokens if tokens.is_floating_point() else tokens.float()
        mask = given.get("mask")
        if mask is None:
            return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return tokens, as_tensor(mask, self.device, "a mask")
