"""`PretrainedText`, a conditioner for texts with a frozen encoder of the package transformers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..parts.extras import require
from .base import Conditioner, Keywords, trained_none
from .text import checked_texts, single_token

_CACHE = "~/.cache/diffusion_framework/texts"


@final
class PretrainedText(Conditioner):
    """Conditioner for texts, encoded by a frozen encoder of the package transformers.

    A value is a list of texts, one for each sample. When sampling, a single text is repeated for
    the batch. "None" is a single learned token. Checkpoints hold the name of the encoder, not its
    weights. Each text is encoded once, and its tokens are kept in files.

    Args:
        dim: Width of the encoder's tokens, such as 512 of google-t5/t5-small; the network takes it
            as its token_dim.
        encoder: Name of the encoder on the Hugging Face hub, or its folder. Only weights in
            safetensors files are read, and no code.
        revision: Version of the encoder on the hub: a branch, a tag or, better, a commit.
        length: Largest number of tokens of a text.
        truncate: Whether longer texts are cut, or refused.
        cache_folder: Folder of the encoded texts; None for ~/.cache/diffusion_framework/texts.
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
        encoder: str,
        revision: str = "main",
        length: int = 64,
        *,
        truncate: bool = False,
        cache_folder: str | None = None,
        flips: bool = False,
        dropout: float = 0.0,
        keyword: str = "tokens",
        mask_keyword: str = "token_mask",
    ) -> None:
        super().__init__((keyword, mask_keyword), dropout)
        if min(dim, length) < 1:
            raise ValueError(
                f"Expected dim and length of at least 1, got {dim=}, {length=}. "
                "Fix: take the width of the encoder's tokens, and length=64."
            )
        self.dim, self.length, self.flips = dim, length, flips
        self.encoder = _FrozenEncoder(encoder, revision, length, truncate)
        self.cache_folder = Path(cache_folder or _CACHE).expanduser()
        self.nothing = nn.Parameter(torch.zeros(dim)) if dropout else None

    def repeat(self, value: Any, batch: int) -> Any:
        return [value] * batch if isinstance(value, str) else value

    def encode(self, value: Any) -> Keywords:
        """Encodes texts as tokens [batch, length, dim], with a mask [batch, length].

        Raises:
            ValueError: If a value is not a list of texts, a text is too long, the encoder cannot be
                loaded, or its tokens have another width.
        """
        texts = checked_texts(value)
        known = {text: self._tokens(text) for text in dict.fromkeys(texts)}
        tokens = torch.zeros(len(texts), self.length, self.dim)
        mask = torch.zeros(len(texts), self.length, dtype=torch.bool)
        for i, text in enumerate(texts):
            count = len(known[text])
            tokens[i, :count], mask[i, :count] = known[text], True
        moved = tokens.to(self.device), mask.to(self.device)
        return dict(zip(self.keywords, moved, strict=True))

    def none(self, batch: int) -> Keywords:
        return single_token(trained_none(self.nothing), self.keywords, batch, self.length)

    def pictures(self, value: Any) -> list[str]:
        return [*checked_texts(value)]

    def _tokens(self, text: str) -> Tensor:
        """Returns the tokens [n, dim] of a text, from its file or from the encoder."""
        folder = self.cache_folder / self.encoder.identity
        path = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
        try:
            tokens = safetensors.torch.load(path.read_bytes())["tokens"]
        except (OSError, SafetensorError, KeyError):  # not there yet, or damaged
            tokens = self.encoder(text, self.device)
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}")  # several processes may encode it
            temporary.write_bytes(safetensors.torch.save({"tokens": tokens}))
            temporary.replace(path)
        if tokens.shape[1] != self.dim:
            raise ValueError(
                f"Expected tokens of width {self.dim} from {self.encoder.name}, got "
                f"{tokens.shape[1]}. Fix: set dim={tokens.shape[1]}, and the network's token_dim."
            )
        return tokens


@final
class _FrozenEncoder:
    """Text encoder outside the module tree, loaded when a text is not known yet.

    Args:
        name: Name on the Hugging Face hub, or a folder.
        revision: Version on the hub.
        length: Largest number of tokens.
        truncate: Whether longer texts are cut.
    """

    def __init__(self, name: str, revision: str, length: int, truncate: bool) -> None:
        self.name, self.revision, self.length, self.truncate = name, revision, length, truncate
        self.loaded: tuple[Any, Any] | None = None
        digest = hashlib.sha256(repr((name, revision, length, truncate)).encode())
        if os.path.isdir(name):  # whose files may change
            for path in sorted(Path(name).iterdir()):
                facts = path.stat()  # without the time of the last access
                digest.update(repr((path.name, facts.st_size, facts.st_mtime_ns)).encode())
        self.identity = digest.hexdigest()[:32]

    def __deepcopy__(self, memo: dict[int, Any]) -> _FrozenEncoder:
        return self  # frozen, so that the moving average of the model shares it

    @torch.no_grad()
    def __call__(self, text: str, device: torch.device) -> Tensor:
        """Returns the tokens [n, dim] of a text in float32 on the CPU.

        Raises:
            ValueError: If the text has too many tokens, or the encoder cannot be loaded.
        """
        tokenizer, model = self.loaded = self.loaded or self._load()
        options = {"truncation": True, "max_length": self.length} if self.truncate else {}
        inputs = tokenizer(text, return_tensors="pt", **options).to(device)
        count = inputs["input_ids"].shape[1]
        if count > self.length:
            raise ValueError(
                f"Expected a text of at most {self.length} tokens, got {count} in {text!r:.60}. "
                "Fix: shorten it, set a larger length, or truncate=True."
            )
        tokens: Tensor = model.to(device)(**inputs).last_hidden_state[0]
        return tokens.float().cpu()

    def _load(self) -> tuple[Any, Any]:
        transformers = require("transformers", "a pretrained text encoder")
        options = {"revision": self.revision, "trust_remote_code": False}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.name, **options)
            model = transformers.AutoModelForTextEncoding.from_pretrained(
                self.name, use_safetensors=True, **options
            )
        except (OSError, ValueError, KeyError) as error:
            cause = " ".join(str(error).split())[:200]
            raise ValueError(
                f"Expected a text encoder in safetensors files under {self.name!r}, got an error "
                f"({cause}). Fix: correct the name, give a folder, or connect to the hub."
            ) from error
        return tokenizer, model.eval().requires_grad_(False)
