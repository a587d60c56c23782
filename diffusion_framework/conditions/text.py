"""`Text`, a conditioner for texts with an encoder that is trained along."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from .base import Conditioner, Keywords, trained_none

_WORDS = re.compile(r"\w+|[^\w\s]")


@final
class Text(Conditioner):
    """Conditioner for texts, encoded by a small transformer that is trained along with the network.

    A value is a list of texts, one for each sample. When sampling, a single text is repeated for
    the batch. "None" is a single learned token. Upper and lower case are the same.

    Args:
        dim: Width of the tokens, which the network takes as its token_dim.
        length: Largest number of words of a text, or of bytes.
        units: Unit of a token: 'words' (and punctuation marks) for descriptions whose words recur,
            or 'bytes' (of UTF-8) for any text.
        vocabulary: Number of embeddings for words. A word takes the one of its hash (Weinberger et
            al. 2009), so no list of words is needed; choose ten times the number of different
            words.
        depth: Number of transformer layers.
        heads: Number of attention heads, which divides dim.
        flips: Whether a text also describes the mirror image, so that training may flip images. It
            does not if texts say left or right.
        dropout: Share of training samples whose value is replaced by "none"; above 0 for guidance.
        keyword: Keyword of the network for the tokens.
        mask_keyword: Keyword of the network for their mask, which is False for padding.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        dim: int,
        length: int = 64,
        *,
        units: Literal["words", "bytes"] = "words",
        vocabulary: int = 16384,
        depth: int = 2,
        heads: int = 4,
        flips: bool = False,
        dropout: float = 0.0,
        keyword: str = "tokens",
        mask_keyword: str = "token_mask",
    ) -> None:
        super().__init__((keyword, mask_keyword), dropout)
        if min(dim, length, vocabulary, heads) < 1 or depth < 0 or dim % heads:
            raise ValueError(
                "Expected sizes of at least 1 and a dim divisible by heads, got "
                f"{dim=}, {length=}, {vocabulary=}, {depth=}, {heads=}. "
                "Fix: start from dim=128, length=64, depth=2, heads=4."
            )
        if units not in ("words", "bytes"):
            raise ValueError(f"Expected units words or bytes, got {units!r}. Fix: choose one.")
        self.flips = flips
        self.dim, self.length, self.units = dim, length, units
        self.buckets = vocabulary if units == "words" else 256
        self.embed = nn.Embedding(self.buckets + 1, dim)  # the first one is for padding
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        options: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        options["activation"] = nn.functional.silu  # one code path in training and sampling
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, 4 * dim, **options) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.nothing = nn.Parameter(torch.zeros(dim)) if dropout else None

    def repeat(self, value: Any, batch: int) -> Any:
        return [value] * batch if isinstance(value, str) else value

    def encode(self, value: Any) -> Keywords:
        """Encodes texts as tokens [batch, length, dim], with a mask [batch, length].

        Raises:
            ValueError: If a value is not a list of texts, or a text is empty or too long.
        """
        numbers = [self._numbers(text) for text in checked_texts(value)]
        padded = [row + [0] * (self.length - len(row)) for row in numbers]
        indices = torch.tensor(padded, device=self.device)
        mask = indices > 0
        h = self.embed(indices) + self.positions
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=~mask)
        tokens = self.norm(h) * mask[:, :, None]
        return dict(zip(self.keywords, (tokens, mask), strict=True))

    def none(self, batch: int) -> Keywords:
        return single_token(trained_none(self.nothing), self.keywords, batch, self.length)

    def pictures(self, value: Any) -> list[str]:
        return [*checked_texts(value)]

    def _numbers(self, text: str) -> list[int]:
        """Returns the indices of the embeddings of a text."""
        plain = unicodedata.normalize("NFKC", text).casefold()
        units = [*plain.encode()]
        if self.units == "words":
            units = [zlib.crc32(word.encode()) % self.buckets for word in _WORDS.findall(plain)]
        if not 0 < len(units) <= self.length:
            raise ValueError(
                f"Expected a text of 1 to {self.length} {self.units}, got {len(units)} in "
                f"{text!r:.60}. Fix: shorten it, or build Text with a larger length."
            )
        return [unit + 1 for unit in units]


def checked_texts(value: Any) -> Sequence[str]:
    """Returns a value that is a list of texts.

    Raises:
        ValueError: If it is something else, or empty.
    """
    several = isinstance(value, Sequence) and not isinstance(value, str)
    if not (several and len(value) and all(isinstance(text, str) for text in value)):
        got = "none" if several and not len(value) else f"{value!r:.60}"
        raise ValueError(
            f"Expected a list of texts, got {got}. Fix: pass one text for each sample, such as "
            "['a red heart', 'a blue heart']."
        )
    return [*value]


def single_token(nothing: Tensor, keywords: Sequence[str], batch: int, length: int) -> Keywords:
    """Returns tokens [batch, length, dim] of which only the first counts, with their mask.

    Args:
        nothing: First token, [dim].
        keywords: Keywords of the network for the tokens and for their mask.
        batch: Number of samples.
        length: Number of tokens, with padding.
    """
    first = torch.arange(length, device=nothing.device) == 0
    tokens = torch.where(first[:, None], nothing, 0.0)
    expanded = tokens.expand(batch, *tokens.shape), first.expand(batch, length)
    return dict(zip(keywords, expanded, strict=True))
