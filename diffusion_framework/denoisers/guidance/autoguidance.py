"""Guidance away from a weaker model (Karras et al. 2024)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import torch

from ...spaces import DataSpace
from ...storage.config import to_config
from ...trainable import Trainable
from ..network import Guide, NetworkDenoiser, NetworkParts
from .base import Guidance, Rule, Unguided, check_scale
from .classifier_free import Extrapolation


@final
@dataclass(frozen=True)
class Autoguidance(Guidance):
    """Extrapolation from a weaker model through this one, both under the same conditions.

    `D_weaker + scale (D - D_weaker)` (Karras et al. 2024). The weaker model has made less progress
    in training, or is smaller; an earlier checkpoint of the same run is one. Unlike classifier-free
    guidance it needs no conditions, and it keeps the variety of samples. Conditions that the
    weaker model does not have are not told to it.

    Args:
        run: Results folder or checkpoint of the weaker model. In Python also the model itself, in
            evaluation mode, which a model with classes of your own needs.
        scale: Guidance scale; 1 switches guidance off.
        weights: Weights of the weaker model: 'ema' (their moving average), 'model' (the last
            ones), or the width of an average, such as 0.2 (see `post_hoc_ema`).

    Raises:
        ValueError: a scale that is not finite. On use, a weaker model with another schedule, shape
            or data space, or in training mode.
    """

    run: str | os.PathLike[str] | Trainable
    scale: float = 2.0
    weights: Literal["ema", "model"] | float = "ema"

    def __post_init__(self) -> None:
        check_scale(self.scale)

    @cached_property
    def model(self) -> Trainable:
        """The weaker model, opened once."""
        if isinstance(self.run, Trainable):
            return self.run
        return Trainable.from_pretrained(self.run, weights=self.weights)

    def begin(self, denoise: NetworkDenoiser) -> Rule:
        if self.scale == 1:
            return Unguided(denoise)
        weaker: NetworkDenoiser = self.once(denoise.conditions, lambda: self._weaker(denoise))
        return Extrapolation(denoise, weaker.fresh(), self.scale)

    def _weaker(self, denoise: NetworkDenoiser) -> NetworkDenoiser:
        """Returns the denoiser of the weaker model, after checks.

        Raises:
            ValueError: the weaker model does not fit.
        """
        model, device = self.model, denoise.parts.device
        if model is not self.run:
            model.to(device)
        if not isinstance(model, Guide):
            raise ValueError(
                f"Expected a diffusion model as the weaker model, got {type(model).__name__}. "
                "Fix: give a checkpoint of a GaussianDiffusion or a DiffusionPolicy."
            )
        if model.training or model.device != device:
            place = "training mode" if model.training else f"on {model.device}"
            raise ValueError(
                f"Expected the weaker model in evaluation mode on {device}, got it {place}. "
                f"Fix: call .eval().to({str(device)!r}) on it."
            )
        told = denoise.conditions
        weaker = model.told(told.values, told.batch).fed(denoise.parts.feedback)
        _check_alike(denoise.parts, weaker.parts)
        return weaker


def _check_alike(own: NetworkParts, weaker: NetworkParts) -> None:
    """Raises ValueError if predictions of two models mean different things."""
    pairs = {
        "schedule": (own.schedule, weaker.schedule),
        "sample_shape": ([*own.signature.sample_shape], [*weaker.signature.sample_shape]),
        "space": (own.space, weaker.space),
    }
    for name, (ours, theirs) in pairs.items():
        same = _same_space(own.space, weaker.space) if name == "space" else ours == theirs
        if not same:
            kind = "space, with the same statistics," if name == "space" else name
            raise ValueError(
                f"Expected a weaker model with the same {kind} as the guided one, {ours!s:.80}, "
                f"got {theirs!s:.80}. Fix: use a checkpoint of the same run, or of one with the "
                "same data and schedule."
            )


def _same_space(one: DataSpace, other: DataSpace) -> bool:
    """Returns whether two spaces have the same options and tensors."""
    if one is other:
        return True
    ours, theirs = one.state_dict(), other.state_dict()
    return (
        to_config(one) == to_config(other)
        and ours.keys() == theirs.keys()
        and all(torch.equal(value, theirs[name]) for name, value in ours.items())
    )
