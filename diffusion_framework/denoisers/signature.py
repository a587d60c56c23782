"""Inputs and outputs of a network, read once when a model is built."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any, final

from torch import Tensor, nn

ESTIMATE_NAMES = ("self_cond", "x_self_cond")
LATENT_NAMES = ("latents", "latent_self_cond")
CONDITION_OPTIONS = ("num_classes", "image_channels", "vector_dim", "token_dim", "augmentation")
_MOST_DIMENSIONS = 8
_MOST_NUMBERS = 2**31  # in a sample: 8 GB of float32


@final
@dataclass(frozen=True)
class NetworkSignature:
    """Keyword arguments and sample shape of a network `forward(x, time, **keywords)`.

    Only this class reads a network's attributes and its call signature.

    Attributes:
        name: Name of the network's class, for errors.
        sample_shape: Shape of one sample.
        estimate: Keyword argument for the last estimate of the clean data, or None.
        needs_estimate: Whether the argument for the estimate has no default.
        latents: Keyword argument for the last latents, or None. With it, the network also takes
            `return_latents=True`, and then returns the output and the next latents.
        second_time: Whether the network takes `second_time` [batch], the time at the end of the
            step.
        keywords: All other keyword arguments, which conditioners supply.
        required: Members of `keywords` without a default.
        takes_any: Whether the network takes `**kwargs`.
        num_classes: Number of classes for labels, or None.
        image_channels: Number of channels of the images of a condition, or None.
        vector_dim: Size of the vectors of a condition, or None.
        token_dim: Width of the tokens of a condition, or None.
        augmentation: Whether training transforms images and tells the network how.
        learned_variance: Whether the output has twice the channels of x, and its second half
            determines the variance.
    """

    name: str
    sample_shape: tuple[int, ...]
    estimate: str | None = None
    needs_estimate: bool = False
    latents: str | None = None
    second_time: bool = False
    keywords: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    takes_any: bool = False
    num_classes: int | None = None
    image_channels: int | None = None
    vector_dim: int | None = None
    token_dim: int | None = None
    augmentation: bool | None = None
    learned_variance: bool = False

    @classmethod
    def of(cls, network: nn.Module, sample_shape: Sequence[int] | None = None) -> NetworkSignature:
        """Returns the signature of a network.

        Args:
            network: Network that takes x and time by position.
            sample_shape: Shape of one sample; None reads the network's `sample_shape`, or its
                `channels` and `image_size`.

        Raises:
            ValueError: the network is not a module, `forward` does not take x and time, takes
                latents without return_latents, or the sample shape is unknown.
        """
        network = _unwrapped(network)
        parameters = list(inspect.signature(network.forward).parameters.values())
        kinds = {parameter.kind for parameter in parameters}
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        positional = [p for p in named if p.kind is not p.KEYWORD_ONLY]
        if len(positional) < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise ValueError(
                f"Expected forward(x, time, ...) in {type(network).__name__}, "
                f"got the arguments {[p.name for p in named]}. "
                "Fix: let forward take the noised data and the time by position."
            )
        rest = {parameter.name: parameter for parameter in named[2:]}
        if "latent_self_cond" in rest and "return_latents" not in rest:
            raise ValueError(
                f"Expected return_latents beside latent_self_cond in {type(network).__name__}, "
                "got no such argument. Fix: with return_latents=True, return (output, latents)."
            )
        estimate = _first(ESTIMATE_NAMES, rest)
        needs_estimate = estimate is not None and rest[estimate].default is inspect.Parameter.empty
        latents = _first(LATENT_NAMES, rest) if "return_latents" in rest else None
        own = {estimate, latents, "second_time", "return_latents" if latents else None}
        keywords = frozenset(rest) - own
        takes = getattr(network, "condition_keywords", None)  # of networks that are built for some
        keywords = keywords if takes is None else keywords & frozenset(takes)
        no_default = {name for name in keywords if rest[name].default is inspect.Parameter.empty}
        no_default |= {name for name in takes or () if name != "token_mask"}
        return cls(
            name=type(network).__name__,
            sample_shape=_checked(sample_shape if sample_shape is not None else _shape(network)),
            estimate=estimate if getattr(network, "self_condition", True) else None,
            needs_estimate=needs_estimate,
            latents=latents,
            second_time="second_time" in rest and bool(getattr(network, "second_time", True)),
            keywords=keywords,
            required=frozenset(no_default),
            takes_any=inspect.Parameter.VAR_KEYWORD in kinds,
            **{name: getattr(network, name, None) for name in CONDITION_OPTIONS},
            learned_variance=bool(getattr(network, "learned_variance", False)),
        )

    def takes(self, keyword: str) -> bool:
        """Returns whether a conditioner may supply this keyword argument."""
        return self.takes_any or keyword in self.keywords

    def check_conditions(self, given: Mapping[str, Iterable[str]]) -> None:
        """Checks that conditioners supply accepted keyword arguments, and all required ones.

        Args:
            given: Keyword arguments that each conditioner supplies, by the condition's name.

        Raises:
            ValueError: a keyword argument that the network does not take, or a missing one.
        """
        for name, keywords in given.items():
            for keyword in keywords:
                if not self.takes(keyword):
                    known = ", ".join(sorted(self.keywords)) or "no condition"
                    raise ValueError(
                        f"Expected conditions that {self.name} takes ({known}), "
                        f"got {name!r}, which gives {keyword!r}. "
                        "Fix: set keyword= in the conditioner, or remove it."
                    )
        owned = {keyword for keywords in given.values() for keyword in keywords}
        if missing := sorted(self.required - owned):
            raise ValueError(
                f"Expected conditioners for all arguments that {self.name} requires, "
                f"got none for {', '.join(missing)}. "
                f"Fix: set conditions={{{missing[0]!r}: ...}}, or give it a default in forward."
            )

    def check_sample(self, x0: Tensor) -> None:
        """Raises ValueError unless encoded data [batch, ...] has the network's shape."""
        if x0.shape[1:] != self.sample_shape:
            expected = ", ".join(map(str, self.sample_shape))
            fix = "give data of the network's shape, or build the network for this shape"
            if (*x0.shape[-1:], *x0.shape[1:-1]) == self.sample_shape:
                fix = "put the channels first, as data.movedim(-1, 1) does"
            raise ValueError(
                f"Expected samples [batch, {expected}] for {self.name}, got {[*x0.shape]}. "
                f"Fix: {fix}."
            )

    def check_latents(self, returned: Any) -> tuple[Any, Tensor]:
        """Returns the output and the detached latents of a network that carries latents.

        Raises:
            ValueError: `returned` is not a pair of an output and a tensor.
        """
        pair = isinstance(returned, tuple | list) and len(returned) == 2
        if not (pair and isinstance(returned[1], Tensor)):
            raise ValueError(
                f"Expected (output, latents) from {self.name} with return_latents=True, "
                f"got {type(returned).__name__}. Fix: let forward return both."
            )
        return returned[0], returned[1].detach()

    @contextmanager
    def unchanged(self, *inputs: Tensor) -> Iterator[None]:
        """Context of a call, after which its inputs must be as before.

        Raises:
            ValueError: the network changed an input in place; later steps would read it.
        """
        if any(each.is_inference() for each in inputs):  # PyTorch does not count their changes
            yield
            return
        before = [each._version for each in inputs]
        yield
        if before != [each._version for each in inputs]:
            raise ValueError(
                f"Expected {self.name} to leave its inputs as they are, got one changed in place. "
                "Fix: use operations without inplace=True or an underscore on inputs of forward."
            )

    def check_output(self, output: Any, x: Tensor) -> Tensor:
        """Returns the network's output for x [batch, ...] as a tensor of the expected shape.

        A tuple of one tensor, and an object with a tensor `sample`, are unwrapped.

        Raises:
            ValueError: the output is not a tensor, or does not have the shape of x (with twice its
                channels if the variance is learned).
        """
        if isinstance(output, tuple | list) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Tensor):
            output = getattr(output, "sample", output)
        if not isinstance(output, Tensor):
            raise ValueError(
                f"Expected a tensor from {self.name}, got {type(output).__name__}. "
                "Fix: let forward return the output alone."
            )
        if not output.is_floating_point():
            raise ValueError(
                f"Expected real numbers from {self.name}, got {output.dtype}. "
                "Fix: let forward return floats."
            )
        channels = x.shape[1] * (2 if self.learned_variance else 1)
        expected = (x.shape[0], channels, *x.shape[2:])
        if output.shape != expected:
            doubled = output.shape == (x.shape[0], 2 * x.shape[1], *x.shape[2:])
            remedy = (
                "set its attribute learned_variance = True"
                if doubled
                else "let forward return the shape of x"
            )
            raise ValueError(
                f"Expected an output {[*expected]} from {self.name}, got {[*output.shape]}. "
                f"Fix: {remedy}."
            )
        return output


def _unwrapped(network: Any) -> nn.Module:
    """Returns the network inside of the wrappers of PyTorch, which hide its signature."""
    if not isinstance(network, nn.Module):
        got = f"the class {network.__name__}" if isinstance(network, type) else f"{network!r:.60}"
        raise ValueError(
            f"Expected a network as a torch.nn.Module, got {got}. Fix: give an object of a class "
            "derived from nn.Module."
        )
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(network.module)
    compiled = getattr(network, "_orig_mod", None)  # of torch.compile
    return network if compiled is None else _unwrapped(compiled)


def _first(names: Sequence[str], among: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in among), None)


def _checked(shape: Iterable[Any]) -> tuple[int, ...]:
    """Returns the shape of a sample, whose size no file may choose at will."""
    shape = tuple(shape)
    whole = all(isinstance(size, Integral) and int(size) >= 1 for size in shape)
    if not whole or not 1 <= len(shape) <= _MOST_DIMENSIONS or math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(
            f"Expected a sample_shape of 1 to {_MOST_DIMENSIONS} sizes of at least 1, with at most "
            f"{_MOST_NUMBERS} numbers in all, got {shape!r:.60}. "
            "Fix: choose a shape such as (3, 64, 64)."
        )
    return tuple(map(int, shape))


def _shape(network: Any) -> tuple[int, ...]:
    """Returns the shape of one sample from the network's attributes."""
    if (shape := getattr(network, "sample_shape", None)) is not None:
        return tuple(shape)
    channels, size = getattr(network, "channels", None), getattr(network, "image_size", None)
    if channels is None or size is None:
        raise ValueError(
            "Expected a network with `sample_shape`, or `channels` and `image_size`, "
            f"got {type(network).__name__} without. "
            "Fix: pass sample_shape=(3, 64, 64) to GaussianDiffusion."
        )
    return (channels, *((size, size) if isinstance(size, int) else size))
