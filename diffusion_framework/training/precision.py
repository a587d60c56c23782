"""Chooses the number format of the network's arithmetic."""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch
from torch import nn

from .checks import expect

Precision = Literal["no", "fp16", "bf16"]

_LARGE = 1_000_000  # parameters; smaller networks lose more by casts on CPUs than they gain


def choose_precision(wanted: Literal["auto"] | Precision, network: nn.Module) -> Precision:
    """Resolves 'auto': the format that accelerate was launched with, or bf16 where it is faster.

    bf16 is assumed to be faster on GPUs that support it, and on CPUs with AVX-512 BF16 for networks
    of at least a million parameters. Nothing is measured, so that a resumed run on the same kind of
    machine makes the same choice.

    Args:
        wanted: The Trainer's `mixed_precision`.
        network: Module whose parameters are counted.

    Raises:
        ValueError: If the format is unknown, or fp16 is requested without a GPU.
    """
    known = ("auto", *get_args(Precision))
    fix = "choose one of these"
    expect(wanted in known, f"mixed_precision among {', '.join(known)}", wanted, fix)
    if wanted == "fp16" and not torch.cuda.is_available():
        raise ValueError(
            "Expected a GPU for fp16, got none. Fix: set mixed_precision to bf16, no or auto."
        )
    if wanted != "auto":
        return wanted
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION")
    for told in get_args(Precision)[1:]:
        if launched == told:
            return told
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in (
        "1",
        "true",
        "yes",
    ):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    large = sum(parameter.numel() for parameter in network.parameters()) >= _LARGE
    return "bf16" if large and _cpu_has_bf16() else "no"


def _cpu_has_bf16() -> bool:
    try:
        return torch.cpu._is_avx512_bf16_supported()
    except AttributeError:  # before torch 2.6
        return False
