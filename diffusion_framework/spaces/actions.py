"""`ActionSpace`: actions in the units of an environment, normalised for a policy's network."""

from collections.abc import Mapping
from typing import Any, final

from jaxtyping import Float, Shaped
from torch import Tensor

from ..parts.type_checks import typed
from .base import DataSpace, at_least_float32, checked_finite
from .normalizer import Normalizer
from .unbounded import check_fitted


@final
class ActionSpace(DataSpace):
    """Space of actions [batch, horizon, action_dim], mapped to [-1, 1] or to mean 0 and std 1.

    Args:
        relative_to: Observation stream from which actions are counted: the first action_dim
            numbers of its newest observation are subtracted. Each step of the horizon then has
            its own statistics, because later actions lie further away. None for absolute actions.
        normalizer: Normalizer of the stream "action"; None for `Normalizer()`, which maps the
            limits of the training data to [-1, 1].

    Raises:
        ValueError: the normalizer has angles for the stream "action".
    """

    sampler = "ddim"  # its last step keeps actions within bounds, a multistep one may leave them

    def __init__(
        self, relative_to: str | None = None, *, normalizer: Normalizer | None = None
    ) -> None:
        super().__init__()
        self.relative_to = relative_to
        self.normalizer = normalizer if normalizer is not None else Normalizer()
        if "action" in self.normalizer.angles:
            raise ValueError(
                "Expected a normalizer without angles for 'action', got one with angles. "
                "Fix: give these actions as sine and cosine."
            )
        bounded = self.normalizer.is_bounded("action")
        self.bounds = (-1.0, 1.0) if bounded else None
        self.sigma_data = 0.5 if bounded else 1.0

    def build(self, sample_shape: tuple[int, ...]) -> None:
        if len(sample_shape) != 2:
            raise ValueError(
                f"Expected samples of shape (horizon, action_dim), got {tuple(sample_shape)}. "
                "Fix: take a network for action sequences, such as ResidualMLP."
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

    @typed
    def encode(
        self, data: Shaped[Tensor, "batch horizon action_dim"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch horizon action_dim"]:
        """Normalises actions; see `DataSpace.encode`.

        Raises:
            ValueError: NaN, infinity, or unfitted statistics (on the CPU); or the observation
                stream named in `relative_to` is missing.
        """
        check_fitted(self.normalizer.statistics("action")[0])
        actions = checked_finite(at_least_float32(data), "remove NaN and infinity from the actions")
        return self.normalizer.normalize("action", actions - self._origin(actions, condition))

    @typed
    def decode(
        self, x0: Float[Tensor, "batch horizon action_dim"], condition: Mapping[str, Any]
    ) -> Float[Tensor, "batch horizon action_dim"]:
        """Inverts `encode`.

        Actions beyond the limits of the training data are not clipped, because the environment has
        its own limits.
        """
        actions = self.normalizer.unnormalize("action", x0)
        return actions + self._origin(actions, condition)

    def bits_offset(self) -> float:
        return float(self.normalizer.statistics("action")[1].double().log2().mean())

    def _origin(self, actions: Tensor, condition: Mapping[str, Any]) -> Tensor | float:
        """Returns the origin of actions [batch, 1, action_dim], or 0 for absolute actions."""
        if self.relative_to is None:
            return 0.0
        streams = condition.get("observations")
        if streams is None or self.relative_to not in streams:
            raise ValueError(
                f"Expected observations of {self.relative_to!r}, the origin of actions, "
                f"got {sorted(streams or ()) or 'none'}. Fix: pass this stream in observations."
            )
        stream = streams[self.relative_to]
        if stream.ndim != 3 or stream.shape[2] < actions.shape[2]:
            raise ValueError(
                f"Expected {self.relative_to!r} [batch, steps, at least {actions.shape[2]}], "
                f"got {[*stream.shape]}. Fix: name another stream in relative_to."
            )
        return stream[:, -1, None, : actions.shape[2]].to(actions)
