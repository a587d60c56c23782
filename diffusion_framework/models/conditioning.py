"""Layers that take the conditions of a network: labels, images, vectors and tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..conditions.augmentation import AUGMENTATION_SIZE
from .layers import zero_init


class ConditionEmbedding(nn.Module):
    """Embeds all conditions of a network but images, which it concatenates to its input.

    Args:
        dim: Width of the embeddings.
        num_classes: Number of classes, or None for a network without.
        image_channels: Number of channels of the images of a condition, or None.
        vector_dim: Size of a vector, or None.
        token_dim: Width of a token, or None.
        augmentation: Whether the network is told how its images were augmented.

    Attributes:
        keywords: Keyword arguments of the network that conditioners supply.

    Raises:
        ValueError: If an option is below 1.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int | None,
        image_channels: int | None,
        vector_dim: int | None,
        token_dim: int | None,
        augmentation: bool = False,
    ) -> None:
        super().__init__()
        options = {
            "num_classes": (num_classes, ("labels",)),
            "image_channels": (image_channels, ("image",)),
            "vector_dim": (vector_dim, ("vector",)),
            "token_dim": (token_dim, ("tokens", "token_mask")),
        }
        for name, (size, _) in options.items():
            if size is not None and size < 1:
                raise ValueError(
                    f"Expected {name} of at least 1, or None for a network without, got {size}. "
                    "Fix: give the size of this condition, or leave it out."
                )
        told = {k for size, names in options.values() if size for k in names}
        self.keywords = frozenset(told | ({"augmentation"} if augmentation else set()))
        self.image_channels = image_channels
        self.label = LabelEmbedding(num_classes, dim)
        self.vector = VectorEmbedding(vector_dim, dim)
        self.tokens = TokenEmbedding(token_dim, dim)
        self.augmentation = None
        if augmentation:
            self.augmentation = zero_init(nn.Linear(AUGMENTATION_SIZE, dim, bias=False))

    def forward(
        self,
        time: Tensor,
        labels: Tensor | None,
        vector: Tensor | None,
        tokens: Tensor | None,
        augmentation: Tensor | None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Returns embeddings [batch, dim] of time, labels and vectors, and tokens [batch, n, dim].

        The embedding of the augmentation, 0 for none, is added to that of the time [batch, dim].

        Raises:
            ValueError: If a condition is given to a network without it, or missing in one with it.
        """
        if augmentation is not None:
            if self.augmentation is None:
                raise ValueError(
                    "Expected no augmentation, as the network is built without, got "
                    f"{[*augmentation.shape]}. Fix: leave it out, or build it with "
                    "augmentation=True."
                )
            time = time + self.augmentation(augmentation)
        single = (time, self.label(labels), self.vector(vector))
        return [each for each in single if each is not None], self.tokens(tokens)

    def concatenate(self, x: Tensor, image: Tensor | None) -> Tensor:
        """Concatenates noised images and the images of a condition along channels.

        Args:
            x: Noised images [batch, channels, height, width].
            image: Images of the condition [batch, image_channels, height, width], or None.

        Raises:
            ValueError: If images are given to a network without, or missing in one with them.
        """
        _check_given("image", image, "image_channels", self.image_channels)
        return x if image is None else torch.cat([x, image], dim=1)


class LabelEmbedding(nn.Module):
    """Learned embedding of class labels, with one more vector for "no class".

    Maps integers [batch] in [0, num_classes] to [batch, dim]; num_classes means "no class".

    Args:
        num_classes: Number of classes. With None, labels must be None and so is their embedding.
        dim: Width of the embedding.

    Raises:
        ValueError: If labels are given to a network without classes, or missing in one with
            classes.
    """

    def __init__(self, num_classes: int | None, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, dim) if num_classes is not None else None

    def forward(self, labels: Tensor | None) -> Tensor | None:
        _check_given("labels", labels, "num_classes", self.num_classes)
        return None if self.table is None else self.table(labels)


class VectorEmbedding(nn.Module):
    """Embedding of vectors by an MLP of two layers.

    Maps [batch, vector_dim] to [batch, dim].

    Args:
        vector_dim: Size of a vector. With None, vectors must be None and so is their embedding.
        dim: Width of the embedding.

    Raises:
        ValueError: If vectors are given to a network without, or missing in one with them.
    """

    def __init__(self, vector_dim: int | None, dim: int) -> None:
        super().__init__()
        self.vector_dim = vector_dim
        self.layers = None
        if vector_dim is not None:
            self.layers = nn.Sequential(nn.Linear(vector_dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, vector: Tensor | None) -> Tensor | None:
        _check_given("vector", vector, "vector_dim", self.vector_dim)
        return None if self.layers is None else self.layers(vector)


class TokenEmbedding(nn.Module):
    """Normalises the tokens of a condition and projects them to another width.

    Maps [batch, n, token_dim] to [batch, n, dim].

    Args:
        token_dim: Width of a token. With None, tokens must be None and so is the result.
        dim: Width of the result.

    Raises:
        ValueError: If tokens are given to a network without, or missing in one with them.
    """

    def __init__(self, token_dim: int | None, dim: int) -> None:
        super().__init__()
        self.token_dim = token_dim
        self.layers = None
        if token_dim is not None:
            self.layers = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, dim))

    def forward(self, tokens: Tensor | None) -> Tensor | None:
        _check_given("tokens", tokens, "token_dim", self.token_dim)
        return None if self.layers is None else self.layers(tokens)


def summed(embeddings: list[Tensor], tokens: Tensor | None, mask: Tensor | None) -> Tensor:
    """Returns the sum [batch, dim] of embeddings [batch, dim] and of the mean of the tokens.

    Args:
        embeddings: Embeddings, [batch, dim] each.
        tokens: Tokens [batch, n, dim], or None.
        mask: Mask of the tokens [batch, n], False for padding; None counts all.
    """
    total = torch.stack(embeddings).sum(dim=0) if len(embeddings) > 1 else embeddings[0]
    return total if tokens is None else total + _mean(tokens, mask)


def _mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return tokens.mean(dim=1)
    counted = mask[:, :, None].to(tokens)
    return (tokens * counted).sum(dim=1) / counted.sum(dim=1)


def joined_mask(first: Tensor, mask: Tensor | None) -> Tensor | None:
    """Returns the mask of tokens `first` [batch, m, ...], all True, followed by those of `mask`."""
    if mask is None:
        return None
    return torch.cat([mask.new_ones(first.shape[:2]), mask], dim=1)


def _check_given(name: str, value: Any, option: str, size: int | None) -> None:
    """Raises ValueError unless a condition is given exactly if the network was built for it."""
    if (value is None) != (size is None):
        got = "none" if value is None else [*value.shape]
        raise ValueError(
            f"Expected {name} if and only if the network has {option}, "
            f"got {option}={size} and {name} {got}. Fix: give both or neither."
        )
