"""`FlowMapLoss`, which trains a network to jump from any noise level to any lower one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.level import Level, Scalar, expand_to
from ..process.noise import rewound
from ..process.objectives import Objective
from .base import Loss, NoisedBatch
from .times import LogitNormal, TimeSampler

_SAME = 1e-6  # difference of times below which a jump is a velocity


@final
@dataclass(frozen=True)
class FlowMapLoss(Loss):
    """Alpha-Flow (Zhang et al. 2025) on any schedule and objective, for sampling in a few jumps.

    The network learns the jump from time t to time r <= t: its output means the straight direction
    that leads there (see `FlowMap`). The target first follows the known noise from t to a time s in
    between, and then the network's own jump from s to r. The share `a` of the way that s lies
    towards r is 1 at first, which is flow matching, and then falls. A loss weight is not used.

    Args:
        warm_up: Share of training with a = 1, in [0, 1).
        settled: Share of training after which `a` keeps its smallest value, in (warm_up, 1].
        smallest: Smallest value of `a`, in (0, 1].
        same: Share of samples whose jump has no length, in [0, 1].
        mean: Mean of logit(r); r is the smaller one of this and t.
        std: Standard deviation of logit(r).
        power: Power p of the weight 1 / (error + 1e-3)^p, in [0, 1]; 0 is the plain error.

    Raises:
        ValueError: If an option is out of range.
    """

    warm_up: float = 0.2
    settled: float = 0.9
    smallest: float = 0.01
    same: float = 0.25
    mean: float = -4.0
    std: float = 1.6
    power: float = 0.5

    times: ClassVar[str | TimeSampler | None] = LogitNormal(-0.6, 1.6)
    sampler: ClassVar[str | None] = "flow_map"

    def __post_init__(self) -> None:
        shares = 0 <= self.warm_up < self.settled <= 1 and 0 <= self.same <= 1
        if not (shares and 0 < self.smallest <= 1 and self.std > 0 and 0 <= self.power <= 1):
            raise ValueError(
                "Expected 0 <= warm_up < settled <= 1, smallest in (0, 1], same and power in "
                f"[0, 1] and std above 0, got {self}. Fix: start from FlowMapLoss()."
            )

    def check(self, parts: NetworkParts, steps: int | None) -> None:
        if not parts.signature.second_time:
            raise ValueError(
                f"Expected a network that takes a second time, got {parts.signature.name}. "
                "Fix: build it with second_time=True (--diffusion.model.second_time true)."
            )

    def share(self, progress: float) -> float:
        """Returns `a` after a share of the training: 1, then exponentially down to `smallest`."""
        if progress <= self.warm_up:
            return 1.0
        fallen = (progress - self.warm_up) / (self.settled - self.warm_up)
        return math.exp(math.log(self.smallest) * min(1.0, fallen))

    def __call__(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Tensor:
        a, at, to = self.share(batch.progress), batch.at, self.ends(denoise, batch)
        target = denoise.objective.target(batch.x0, batch.eps, at)
        if a < 1:
            target = jump_target(denoise, batch, to, a, target)
        output, _ = denoise.output(batch.x, at, to)
        error = batch.mean((output - target).square()) / a
        return error / (error.detach() + 1e-3) ** self.power

    def ends(self, denoise: NetworkDenoiser, batch: NoisedBatch) -> Level:
        """Returns the levels where the jumps end, of tensors [batch]."""
        t = torch.as_tensor(batch.at.t)

        def uniform() -> Tensor:
            drawn = torch.rand(len(t), generator=batch.generator, device=t.device, dtype=t.dtype)
            return drawn.clamp(1e-6, 1 - 1e-6)

        end = torch.sigmoid(self.mean + self.std * torch.special.ndtri(uniform()))
        end = torch.where(uniform() < self.same, t, torch.minimum(end, t))
        return denoise.schedule.at(end)


@torch.no_grad()
def jump_target(
    denoise: NetworkDenoiser,
    batch: NoisedBatch,
    to: Level,
    share: float,
    velocity: Tensor,
) -> Tensor:
    """Returns the output that the network should have for the jump from `batch.at` to `to`.

    The next call of the network has the same dropout as this one.

    Args:
        denoise: Network.
        batch: Noised batch.
        to: Ends of the jumps, of tensors [batch].
        share: Share of the way on which the known noise is followed, in (0, 1).
        velocity: Target of a jump without length, [batch, ...].

    Returns:
        The target [batch, ...]; `velocity` where the jump has no length.
    """
    at, objective = batch.at, denoise.objective
    t, r = torch.as_tensor(at.t), torch.as_tensor(to.t)
    between = denoise.schedule.at(share * r + (1 - share) * t)
    middle = expand_to(between.alpha, batch.x0) * batch.x0
    middle = middle + expand_to(between.sigma, batch.x0) * batch.eps
    with rewound(batch.x.device):
        rest, _ = denoise.output(middle.to(batch.x.dtype), between, to)
    first, second, whole = (
        jump(objective, *ends) for ends in ((at, between), (between, to), (at, to))
    )
    still = (t - r) < _SAME
    divisor = torch.where(still, 1.0, torch.as_tensor(whole[1]))
    weights = (
        torch.where(still, 0.0, (first[0] * second[0] - whole[0]) / divisor),
        torch.where(still, 1.0, first[1] * second[0] / divisor),
        torch.where(still, 0.0, second[1] / divisor),
    )
    parts = zip(weights, (batch.x, velocity, rest), strict=True)
    return sum(expand_to(weight, part).to(part.dtype) * part for weight, part in parts)


def jump(objective: Objective, at: Level, to: Level) -> tuple[Scalar, Scalar]:
    """Returns (A, B), where an output F for x at one level leads to `A x + B F` at another one."""
    a, b = objective.row(at)
    determinant = b * at.alpha - a * at.sigma
    return (
        (to.alpha * b - to.sigma * a) / determinant,
        (to.sigma * at.alpha - to.alpha * at.sigma) / determinant,
    )
