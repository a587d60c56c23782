"""What a network takes and gives, read once when a model is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from ..conditions import Conditioner, Labels

ESTIMATE_NAMES = ("self_cond", "x_self_cond")
LATENT_NAMES = ("latents", "latent_self_cond")


@final
@dataclass(frozen=True)
class NetworkSignature:
    """The keywords and the shape of a network `forward(x, time, **keywords)`.

    Only this class looks at a network's attributes and at its call signature.

    Attributes:
        name: The network's class, for errors.
        sample_shape: Shape of one sample.
        estimate: Keyword for the network's last estimate of the clean data, or None.
        latents: Keyword for the network's last latents, or None. Such a network takes
            `return_latents=True` as well, and then returns the output and the next latents.
        second_time: Whether the network takes `second_time` [batch], the time a step goes to.
        keywords: All other keywords, which conditioners give.
        required: Those among them without a default.
        takes_any: Whether the network has `**kwargs`.
        num_classes: Number of classes of labels that the network takes, or None.
        learned_variance: Whether the output has twice the channels, the second half telling the
            variance.
    """

    name: str
    sample_shape: tuple[int, ...]
    estimate: str | None = None
    latents: str | None = None
    second_time: bool = False
    keywords: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    takes_any: bool = False
    num_classes: int | None = None
    learned_variance: bool = False

    @classmethod
    def of(cls, network: nn.Module, sample_shape: Sequence[int] | None = None) -> NetworkSignature:
        """The signature of a network.

        Args:
            network: Takes x and time by position.
            sample_shape: Shape of one sample; None reads the network's `sample_shape`, or its
                `channels` and `image_size`.

        Raises:
            ValueError: a forward without x and time, or a shape that is given nowhere.
        """
        parameters = list(inspect.signature(network.forward).parameters.values())
        kinds = {parameter.kind for parameter in parameters}
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if len(named) < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise ValueError(
                f"Expected forward(x, time, ...) of {type(network).__name__}, got "
                f"{[p.name for p in named]}. "
                "Fix: let it take the noised data and the time by position."
            )
        rest = {parameter.name: parameter for parameter in named[2:]}
        estimate = _first(ESTIMATE_NAMES, rest)
        latents = _first(LATENT_NAMES, rest) if "return_latents" in rest else None
        own = {estimate, latents, "second_time", "return_latents" if latents else None}
        keywords = frozenset(rest) - own
        no_default = {name for name in keywords if rest[name].default is inspect.Parameter.empty}
        return cls(
            name=type(network).__name__,
            sample_shape=tuple(sample_shape) if sample_shape is not None else _shape(network),
            estimate=estimate if getattr(network, "self_condition", True) else None,
            latents=latents,
            second_time="second_time" in rest,
            keywords=keywords,
            required=frozenset(no_default),
            takes_any=inspect.Parameter.VAR_KEYWORD in kinds,
            num_classes=getattr(network, "num_classes", None),
            learned_variance=bool(getattr(network, "learned_variance", False)),
        )

    def takes(self, keyword: str) -> bool:
        """Whether a conditioner may give this keyword."""
        return self.takes_any or keyword in self.keywords

    def default_conditions(self, label_dropout: float) -> dict[str, Conditioner]:
        """The conditions of a model that names none: labels, for a network with classes.

        Raises:
            ValueError: label_dropout without classes.
        """
        if self.num_classes is not None and self.takes("labels"):
            return {"labels": Labels(self.num_classes, dropout=label_dropout)}
        if label_dropout:
            raise ValueError(
                f"Expected a network with classes for label_dropout={label_dropout}, got "
                f"{self.name} "
                "without. Fix: set its num_classes."
            )
        return {}

    def check_conditions(self, given: Mapping[str, Iterable[str]]) -> None:
        """Raises ValueError unless conditioners give what the network takes, and all it needs.

        Args:
            given: Keywords that each conditioner gives, by the conditioner's name.
        """
        for name, keywords in given.items():
            for keyword in keywords:
                if not self.takes(keyword):
                    known = ", ".join(sorted(self.keywords)) or "no condition"
                    raise ValueError(
                        f"Expected conditions that {self.name} takes ({known}), got {name!r}, "
                        f"which "
                        f"gives {keyword!r}. Fix: set keyword= of the conditioner, or drop it."
                    )
        owned = {keyword for keywords in given.values() for keyword in keywords}
        if missing := sorted(self.required - owned):
            raise ValueError(
                f"Expected conditioners for all that {self.name} needs, got none for "
                f"{', '.join(missing)}. Fix: conditions={{{missing[0]!r}: a conditioner}}, or a "
                "default in its forward."
            )

    def check_sample(self, x0: Tensor) -> None:
        """Raises ValueError unless encoded data [batch, ...] has the network's shape."""
        if x0.shape[1:] != self.sample_shape:
            expected = ", ".join(map(str, self.sample_shape))
            raise ValueError(
                f"Expected samples [batch, {expected}] for {self.name}, got {[*x0.shape]}. "
                "Fix: give data of the network's shape, or build the network for this shape."
            )

    def check_latents(self, returned: Any) -> tuple[Any, Tensor]:
        """The output and the latents, without gradient, in what the network returned.

        Raises:
            ValueError: something else.
        """
        pair = isinstance(returned, tuple | list) and len(returned) == 2
        if not (pair and isinstance(returned[1], Tensor)):
            raise ValueError(
                f"Expected (output, latents) from {self.name} with return_latents=True, got "
                f"{type(returned).__name__}. Fix: let forward return both."
            )
        return returned[0], returned[1].detach()

    def check_output(self, output: Any, x: Tensor) -> Tensor:
        """The tensor in what the network returned for x [batch, ...], checked.

        A tuple of one tensor and an object with a tensor `sample` are unwrapped.

        Raises:
            ValueError: something else, or a tensor of another shape than x, or than x with twice
                the channels if the variance is learned.
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
                f"Expected an output {[*expected]} from {self.name}, got {[*output.shape]}. Fix: "
                f"{remedy}."
            )
        return output


def _first(names: Sequence[str], among: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in among), None)


def _shape(network: Any) -> tuple[int, ...]:
    """Shape of one sample, as the network's attributes tell it."""
    if (shape := getattr(network, "sample_shape", None)) is not None:
        return tuple(shape)
    channels, size = getattr(network, "channels", None), getattr(network, "image_size", None)
    if channels is None or size is None:
        raise ValueError(
            f"Expected the shape of a sample, got {type(network).__name__} without `sample_shape`, "
            f"or `channels` and "
            "`image_size`. Fix: GaussianDiffusion(network, sample_shape=(3, 64, 64))."
        )
    return (channels, *((size, size) if isinstance(size, int) else size))
