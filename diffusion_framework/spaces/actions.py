"""`ActionSpace`: actions as measured to what a policy's network sees."""

from collections.abc import Mapping
from typing import Any, final

from beartype import beartype
from jaxtyping import Float, Shaped, jaxtyped
from torch import Tensor

from .base import DataSpace, at_least_float32, checked_finite
from .normalizer import Normalizer
from .unbounded import check_fitted


@final
class ActionSpace(DataSpace):
    """Maps actions [batch, horizon, action_dim] by their limits to [-1, 1], or to mean 0 and std 1.

    Args:
        relative_to: Name of the observation stream whose first action_dim numbers, in the newest
            observation, are the origin of actions; each step of the horizon then has statistics
            of its own, as late actions are further away than early ones. None takes actions as
            they are.
        normalizer: What maps them, as stream "action"; None is `Normalizer()`, by limits.
    """

    def __init__(
        self, relative_to: str | None = None, *, normalizer: Normalizer | None = None
    ) -> None:
        super().__init__()
        self.relative_to = relative_to
        self.normalizer = normalizer if normalizer is not None else Normalizer()
        if "action" in self.normalizer.angles:
            raise ValueError(
                "Expected actions without angles, got a normalizer with some. "
                "Fix: give angles as sine and cosine."
            )
        bounded = self.normalizer.is_bounded("action")
        self.bounds = (-1.0, 1.0) if bounded else None
        self.sigma_data = 0.5 if bounded else 1.0

    def build(self, sample_shape: tuple[int, ...]) -> None:
        if len(sample_shape) != 2:
            raise ValueError(
                f"Expected samples (horizon, action_dim), got {tuple(sample_shape)}. "
                "Fix: take a network of action sequences."
            )
        shape = sample_shape[1:] if self.relative_to is None else sample_shape
        self.normalizer.build({"action": tuple(shape)})

    @property
    def needs_fit(self) -> bool:
        return self.normalizer.needs_fit

    def observe(self, data: Tensor, condition: Mapping[str, Any]) -> None:
        actions = at_least_float32(data) - self._origin(data, condition)
        rows = actions.flatten(0, 1) if self.relative_to is None else actions
        self.normalizer.observe({"action": rows})

    def finish(self) -> None:
        self.normalizer.finish()

    @jaxtyped(typechecker=beartype)
    def encode(
        self, data: Shaped[Tensor, "batch horizon action_dim"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch horizon action_dim"]:
        """Maps actions as measured to the network's range; see `DataSpace.encode`.

        Raises:
            ValueError: on the CPU, NaN or infinity, or statistics that were not fitted; an origin
                that is missing.
        """
        check_fitted(self.normalizer.statistics("action")[0])
        actions = checked_finite(at_least_float32(data), "remove NaN and infinity from the actions")
        return self.normalizer.normalize("action", actions - self._origin(actions, condition))

    @jaxtyped(typechecker=beartype)
    def decode(
        self, x0: Float[Tensor, "batch horizon action_dim"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch horizon action_dim"]:
        """Undoes `encode`. Actions beyond the limits of the training data are not cut off: an
        environment knows its own limits."""
        actions = self.normalizer.unnormalize("action", x0)
        return actions + self._origin(actions, condition)

    def bits_offset(self) -> float:
        return float(self.normalizer.statistics("action")[1].double().log2().mean())

    def _origin(self, actions: Tensor, condition: Mapping[str, Any]) -> Tensor | float:
        """[batch, 1, action_dim], from which actions are counted."""
        if self.relative_to is None:
            return 0.0
        streams = condition.get("observations")
        if streams is None or self.relative_to not in streams:
            raise ValueError(
                f"Expected observations with {self.relative_to!r}, which actions are "
                f"relative to, got {sorted(streams or ()) or 'none'}. Fix: give it."
            )
        stream = streams[self.relative_to]
        if stream.ndim != 3 or stream.shape[2] < actions.shape[2]:
            raise ValueError(
                f"Expected {self.relative_to!r} [batch, steps, at least {actions.shape[2]}], "
                f"got {[*stream.shape]}. Fix: name another stream in relative_to."
            )
        return stream[:, -1, None, : actions.shape[2]].to(actions)
