"""Sources of randomness: generators seeded by explicit keys, never a global generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .level import Noise

_MASK = (1 << 64) - 1


def mix(*keys: Any) -> Any:
    """Derives one 63-bit seed from integer keys; different keys give unrelated seeds.

    The hash is splitmix64 (Steele et al. 2014).

    Args:
        keys: Integers. NumPy arrays of dtype uint64 with at least one dimension give one seed for
            each element.
    """
    state: Any = 0
    for key in keys:
        state = ((state + 0x9E3779B97F4A7C15 & _MASK) + (key & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def keyed_generator(device: torch.device | str, *keys: int) -> torch.Generator:
    """Returns a new generator on `device`, seeded with `mix(*keys)`.

    PyTorch's CPU generator uses only 32 bits of the seed.
    """
    return torch.Generator(device).manual_seed(mix(*keys))


def generator_noise(generator: torch.Generator | None = None) -> Noise:
    """Noise of a whole batch from one generator (None: torch's default one for the device)."""
    return lambda x: torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def per_sample_noise(seeds: Sequence[int], device: torch.device | str) -> Noise:
    """Noise in which sample i depends on `seeds[i]` alone, not on the size of the batch or on its place in it.

    Each call draws the next noise of every sample, so one source serves one trajectory.

    Args:
        seeds: One integer for each sample of the batch.
        device: Where the noise is drawn; the numbers differ between kinds of device.
    """
    generators = [keyed_generator(device, seed) for seed in seeds]

    def noise(x: Tensor) -> Tensor:
        if len(x) != len(generators):
            raise ValueError(f"one seed a sample is needed; got {len(generators)} seeds for {len(x)} samples")
        draws = [torch.randn(x.shape[1:], generator=g, device=x.device, dtype=x.dtype) for g in generators]
        return torch.stack(draws)

    return noise
