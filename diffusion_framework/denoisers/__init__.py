"""Denoisers: the view of a network that samplers, guidance and losses share."""

from .base import Denoiser, StatelessDenoiser, TransformX0
from .clipping import Clip, KeepInRange, Threshold, clipped
from .default_conditions import chosen_conditions
from .guidance import ClassifierFree, Guidance, as_guidance
from .network import NetworkDenoiser, NetworkParts, predict_together
from .preconditioning import (
    CNoise,
    InputScaling,
    LogSNRTime,
    MeasuredVariance,
    Preconditioning,
    SigmaTime,
    StepTime,
    TimeInput,
    UnitTime,
    UnitVariance,
    Unscaled,
    preconditioning_for,
    shared_sigma_data,
)
from .signature import NetworkSignature

__all__ = [
    "CNoise",
    "ClassifierFree",
    "Clip",
    "Denoiser",
    "Guidance",
    "InputScaling",
    "KeepInRange",
    "LogSNRTime",
    "MeasuredVariance",
    "NetworkDenoiser",
    "NetworkParts",
    "NetworkSignature",
    "Preconditioning",
    "SigmaTime",
    "StatelessDenoiser",
    "StepTime",
    "Threshold",
    "TimeInput",
    "TransformX0",
    "UnitTime",
    "UnitVariance",
    "Unscaled",
    "as_guidance",
    "chosen_conditions",
    "clipped",
    "preconditioning_for",
    "predict_together",
    "shared_sigma_data",
]
