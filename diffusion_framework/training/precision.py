"""Which numbers a run calculates with."""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch
from torch import nn

Precision = Literal["no", "fp16", "bf16"]

_LARGE = 1_000_000  # parameters: the convolutions of smaller networks lose more by casts than they gain, on CPUs


def choose_precision(wanted: Literal["auto"] | Precision, network: nn.Module) -> Precision:
    """What 'auto' stands for: as accelerate was launched, if it was told; else bf16 where that is faster.

    Those are GPUs with bf16, and CPUs with AVX-512 BF16 for networks of at least a million parameters. The choice does
    not depend on measuring, so that a resumed run makes the same one on the same kind of machine.

    Raises:
        ValueError: fp16 is wanted without a GPU.
    """
    if wanted == "fp16" and not torch.cuda.is_available():
        raise ValueError("fp16 needs a GPU and none is here; set mixed_precision to bf16, no or auto")
    if wanted != "auto":
        return wanted
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION")
    for told in get_args(Precision)[1:]:
        if launched == told:
            return told
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    large = sum(parameter.numel() for parameter in network.parameters()) >= _LARGE
    return "bf16" if large and _cpu_has_bf16() else "no"


def _cpu_has_bf16() -> bool:
    try:
        return torch.cpu._is_avx512_bf16_supported()
    except AttributeError:  # before torch 2.6
        return False
