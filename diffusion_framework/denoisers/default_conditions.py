"""Conditions of a model that is built without any."""

from __future__ import annotations

from ..conditions import (
    Augmentation,
    Conditioner,
    Images,
    Labels,
    Text,
    Vectors,
    check_augmentation,
)
from ..spaces import DataSpace
from .signature import NetworkSignature

_DROPOUT = 0.1


def chosen_conditions(
    conditions: dict[str, Conditioner] | None,
    signature: NetworkSignature,
    space: DataSpace,
    dropout: float | None,
    augmentation: float | None,
) -> dict[str, Conditioner]:
    """Returns the given conditioners, or one for each condition that a network is built for.

    Args:
        conditions: Conditioners by name, or None.
        signature: Signature of the network.
        space: Data space of the model.
        dropout: Probability that a training sample loses a condition, in [0, 1); None for 0.1.
        augmentation: Probability of each transformation of training images, in [0, 1]; None for
            that of `Augmentation`.

    Raises:
        ValueError: If a network that is built for a condition has no argument for it, if dropout or
            augmentation is given for a network without or beside conditioners, or if data that are
            not images are augmented.
    """
    if conditions is not None:
        if dropout is not None:
            raise ValueError(
                f"Expected no condition_dropout beside conditions, got {dropout}. "
                "Fix: set dropout= in each conditioner."
            )
        if augmentation is not None:
            raise ValueError(
                f"Expected no augmentation beside conditions, got {augmentation}. "
                "Fix: add Augmentation(probability=...) to the conditions."
            )
        check_augmentation(space, conditions)
        return conditions
    share = _DROPOUT if dropout is None else dropout
    found: dict[str, Conditioner] = {}
    if size := _size(signature, "num_classes", signature.num_classes, "labels"):
        found["labels"] = Labels(size, dropout=share)
    if size := _size(signature, "image_channels", signature.image_channels, "image"):
        found["image"] = Images(size, dropout=share)
    if size := _size(signature, "vector_dim", signature.vector_dim, "vector"):
        found["vector"] = Vectors(size, dropout=share)
    if size := _size(signature, "token_dim", signature.token_dim, "tokens"):
        found["text"] = Text(size, dropout=share)
    if dropout and not found:
        raise ValueError(
            f"Expected a network with conditions for condition_dropout={dropout}, "
            f"got {signature.name} without. Fix: set its num_classes, or leave the dropout out."
        )
    found |= _augmentation(signature, augmentation)
    check_augmentation(space, found)
    return found


def _augmentation(signature: NetworkSignature, probability: float | None) -> dict[str, Conditioner]:
    if _size(signature, "augmentation", signature.augmentation or None, "augmentation"):
        return {"augmentation": Augmentation(0.12 if probability is None else probability)}
    if probability is not None:
        raise ValueError(
            f"Expected a network that is told of augmentation={probability}, got {signature.name} "
            "without. Fix: build it with augmentation=True (--diffusion.model.augmentation true)."
        )
    return {}


def _size(
    signature: NetworkSignature, attribute: str, size: int | None, keyword: str
) -> int | None:
    if size is not None and not signature.takes(keyword):
        raise ValueError(
            f"Expected an argument {keyword} of {signature.name}, which has {attribute}, got none. "
            f"Fix: name it {keyword}, or set conditions= with keyword=...; "
            "without conditions, set conditions={}."
        )
    return size
