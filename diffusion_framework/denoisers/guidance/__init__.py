"""Guidance: classes that make guided denoisers, one file for each kind."""

from .apg import APG
from .autoguidance import Autoguidance
from .base import Guidance, GuidedDenoiser, Rule
from .cfg_zero import CFGZero
from .choosing import Guided, as_guidance
from .classifier import ClassifierGuidance
from .classifier_free import ClassifierFree
from .interval import Interval
from .modifier import Modifier
from .per_condition import PerCondition
from .rescale import Rescale
from .sum import Sum

__all__ = [
    "APG",
    "Autoguidance",
    "CFGZero",
    "ClassifierFree",
    "ClassifierGuidance",
    "Guidance",
    "Guided",
    "GuidedDenoiser",
    "Interval",
    "Modifier",
    "PerCondition",
    "Rescale",
    "Rule",
    "Sum",
    "as_guidance",
]
