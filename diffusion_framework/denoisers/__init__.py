"""Denoisers: the view of a network that samplers, guidance and losses share."""

from .base import Denoiser, StatelessDenoiser, TransformX0
from .clipping import Clip, KeepInRange, Threshold, clipped
from .default_conditions import chosen_conditions
from .guidance import (
    APG,
    Autoguidance,
    CFGZero,
    ClassifierFree,
    ClassifierGuidance,
    Guidance,
    Guided,
    Interval,
    PerCondition,
    Rescale,
    Sum,
    as_guidance,
)
from .memory import Feedback
from .network import Guide, NetworkDenoiser, NetworkParts, predict_together
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
    "APG",
    "Autoguidance",
    "CFGZero",
    "CNoise",
    "ClassifierFree",
    "ClassifierGuidance",
    "Clip",
    "Denoiser",
    "Feedback",
    "Guidance",
    "Guide",
    "Guided",
    "InputScaling",
    "Interval",
    "KeepInRange",
    "LogSNRTime",
    "MeasuredVariance",
    "NetworkDenoiser",
    "NetworkParts",
    "NetworkSignature",
    "PerCondition",
    "Preconditioning",
    "Rescale",
    "SigmaTime",
    "StatelessDenoiser",
    "StepTime",
    "Sum",
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
