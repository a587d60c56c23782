"""Sources of randomness: generators seeded by explicit keys, never a global generator."""

from __future__ import annotations

import operator
from collections.abc import Sequence, Sized
from contextlib import AbstractContextManager
from typing import Any, SupportsIndex

import numpy as np
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
        if not (isinstance(key, np.ndarray) and key.ndim):
            key = operator.index(key)  # integers of NumPy would overflow
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


def generator_noise(
    generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Noise:
    """Returns a source of noise that draws whole batches from one generator.

    Args:
        generator: Random number generator; None uses PyTorch's default generator.
        device: Device on which the noise is drawn if no generator is given; None uses the device of
            the samples.
    """
    drawn_on = generator.device if generator is not None else device

    def noise(x: Tensor) -> Tensor:
        z = torch.randn(x.shape, generator=generator, device=drawn_on or x.device, dtype=x.dtype)
        return z.to(x.device)

    return noise


def uniform_number(generator: torch.Generator | None = None) -> float:
    """Returns a number uniform in [0, 1); None uses PyTorch's default generator of the CPU."""
    device = "cpu" if generator is None else generator.device
    return float(torch.rand((), generator=generator, device=device))


def rewound(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context after which PyTorch's default generators are in the state before it.

    Calls of a network inside it and after it then have the same dropout. These are the generators
    on the CPU and on the device; PyTorch cannot rewind that of an MPS device.

    Args:
        device: Device of the network.
    """
    devices = [] if device.type in ("cpu", "meta", "mps") else [device]
    return torch.random.fork_rng(devices, device_type=device.type)


def per_sample_noise(seeds: Sequence[int], device: torch.device | str) -> Noise:
    """Returns a source of noise in which sample i depends on `seeds[i]` only.

    It depends neither on the batch size nor on the position in the batch. Each call draws the next
    noise of every sample, so one source serves one trajectory.

    Args:
        seeds: One integer for each sample of the batch.
        device: Device on which the noise is drawn. Different kinds of device give different
            numbers.

    Raises:
        ValueError: When the source is called, if the number of samples is not that of the seeds.
    """
    generators = [keyed_generator(device, seed) for seed in seeds]

    def noise(x: Tensor) -> Tensor:
        if len(x) != len(generators):
            raise ValueError(
                f"Expected one seed per sample, got {len(generators)} for {len(x)} samples. "
                "Fix: give as many seeds as samples."
            )
        draws = [
            torch.randn(x.shape[1:], generator=g, device=g.device, dtype=x.dtype)
            for g in generators
        ]
        return torch.stack(draws).to(x.device)

    return noise


def sample_seeds(seed: int, indices: Sequence[int]) -> list[int]:
    """Returns the seeds of the samples with these indices, in a run of sampling with `seed`."""
    return [mix(seed, index) for index in indices]


def noise_source(
    seed: SupportsIndex | Sequence[SupportsIndex] | None,
    generator: torch.Generator | None,
    batch: int,
    device: torch.device | str,
) -> Noise:
    """Returns the source of noise for one trajectory of a batch.

    Args:
        seed: One integer, from which a seed for each sample is derived, or one seed for each
            sample. None draws from the generator.
        generator: Random number generator, instead of a seed; None uses PyTorch's default
            generator.
        batch: Number of samples.
        device: Device on which the noise is drawn if no generator is given.

    Raises:
        ValueError: If both a seed and a generator are given, or the number of seeds is not `batch`.
    """
    if seed is None:
        return generator_noise(generator, device)
    if generator is not None:
        raise ValueError("Expected a seed or a generator, got both. Fix: leave one out.")
    if not isinstance(seed, Sized):
        seed = sample_seeds(operator.index(seed), range(batch))
    if len(seed) != batch:
        raise ValueError(
            f"Expected one seed for each of {batch} samples, got {len(seed)}. "
            "Fix: give exactly one seed for each sample."
        )
    return per_sample_noise([operator.index(one) for one in seed], device)
