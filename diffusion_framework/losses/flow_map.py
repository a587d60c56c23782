"""`FlowMapLoss`, which trains a network to jump from any noise level to any lower one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ..conditions import Conditions
from ..denoisers import NetworkDenoiser, NetworkParts
from ..process.level import Level, Scalar, expand_to
from ..process.noise import rewound
from ..process.objectives import Objective
from .base import Loss, NoisedBatch
from .times import LogNormal, TimeSampler

_SAME = 1e-6  # difference of times below which a jump is a velocity


@final
@dataclass(frozen=True)
class FlowMapLoss(Loss):
    """Alpha-Flow (Zhang et al. 2025) on any schedule and objective, for sampling in a few jumps.

    The network learns the jump from time t to time r <= t: its output means the straight direction
    that leads there (see `FlowMap`). The target first follows the known noise from t to a time s in
    between, and then the network's own jump from s to r. The share `a` of the way that s lies
    towards r is 1 at first, which is flow matching, and then falls. A loss weight is not used.

    With guidance w, the target of a jump without length is `w v + (1 - w) u`, where v is the plain
    one and u the network's own output without conditions (MeanFlow, Geng et al. 2025, sec. 4.2).
    Samples with conditions are then guided at one call a step. Dropped conditions keep v.

    Args:
        warm_up: Share of training with a = 1, in [0, 1).
        settled: Share of training after which `a` keeps its smallest value, in (warm_up, 1].
        smallest: Smallest value of `a`, in (0, 1].
        same: Share of samples whose jump has no length, in [0, 1].
        spread: Share of the other jumps that end at a time uniform in (0, t), for sampling in
            several jumps, in [0, 1].
        mean: Mean of ln(sigma / alpha) at r for the rest; r is t itself where t has less noise.
        std: Standard deviation of ln(sigma / alpha) at r.
        power: Power p of the weight 1 / (error + 1e-3)^p, in [0, 1]; 0 is the plain error. A weight
            by each sample's error turns the mean that the network learns into a median, if samples
            have few numbers, such as actions.
        guidance: Guidance scale w of the samples; 1 trains without guidance. Other values need
            conditions with dropout, and a further call of the network in training.

    Raises:
        ValueError: If an option is out of range.
    """

    warm_up: float = 0.2
    settled: float = 0.9
    smallest: float = 0.01
    same: float = 0.25
    spread: float = 0.25
    mean: float = -4.0
    std: float = 1.6
    power: float = 0.5
    guidance: float = 1.0

    times: ClassVar[str | TimeSampler | None] = LogNormal(-0.6, 1.6)
    sampler: ClassVar[str | None] = "flow_map"

    def __post_init__(self) -> None:
        shares = 0 <= self.warm_up < self.settled <= 1 and 0 <= self.same <= 1
        shares = shares and 0 <= self.spread <= 1
        shares = shares and math.isfinite(self.guidance)
        if not (shares and 0 < self.smallest <= 1 and self.std > 0 and 0 <= self.power <= 1):
            raise ValueError(
                "Expected 0 <= warm_up < settled <= 1, smallest in (0, 1], same, spread and power "
                f"in [0, 1], std above 0 and a finite guidance, got {self}. "
                "Fix: start from FlowMapLoss()."
            )

    def check(self, parts: NetworkParts, steps: int | None, conditions: Conditions) -> None:
        if not parts.signature.second_time:
            raise ValueError(
                f"Expected a network that takes a second time, got {parts.signature.name}. "
                "Fix: build it with second_time=True (--diffusion.model.second_time true)."
            )
        if self.guidance != 1 and not any(conditions[name].dropout for name in conditions):
            raise ValueError(
                "Expected conditions with dropout for a flow map with "
                f"guidance={self.guidance:g}, got none. Fix: give the model conditions and "
                "condition_dropout=0.1 (--diffusion.condition_dropout 0.1), or set guidance=1."
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
        if self.guidance != 1:
            target = guided(denoise, batch, target, self.guidance)
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

        log_snr = -2 * (self.mean + self.std * torch.special.ndtri(uniform()))
        log_snr = log_snr.clamp(max=denoise.schedule.at(0.0).log_snr)
        stays = (uniform() < self.same) | (log_snr < batch.at.log_snr)
        ends = torch.where(stays, t, denoise.schedule.time(log_snr))
        spreads = ~stays & (uniform() < self.spread)
        return denoise.schedule.at(torch.where(spreads, t * uniform(), ends))


@torch.no_grad()
def guided(
    denoise: NetworkDenoiser, batch: NoisedBatch, velocity: Tensor, guidance: float
) -> Tensor:
    """Returns the guided target of jumps without length.

    The next call of the network has the same dropout as this one.

    Args:
        denoise: Network with the conditions of the batch.
        batch: Noised batch.
        velocity: Target without guidance, [batch, ...].
        guidance: Guidance scale w.

    Returns:
        `w v + (1 - w) u` for samples with a condition, v for samples without, [batch, ...].
    """
    free = denoise.without()
    with rewound(batch.x.device):
        output, _ = free.output(batch.x, batch.at)
    dropped = torch.ones(len(velocity), dtype=torch.bool, device=velocity.device)
    none = free.conditions.keywords
    for name, value in denoise.conditions.keywords.items():
        dropped &= (value == none[name].to(value)).reshape(len(value), -1).all(1)
    mixed = torch.lerp(output, velocity, guidance)
    return torch.where(expand_to(dropped, mixed).bool(), velocity, mixed)


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
        share: Share of the way on which `velocity` is followed, in (0, 1).
        velocity: Target of a jump without length, [batch, ...]. It is followed from `batch.at`.

    Returns:
        The target [batch, ...]; `velocity` where the jump has no length.
    """
    at, objective = batch.at, denoise.objective
    t, r = torch.as_tensor(at.t), torch.as_tensor(to.t)
    between = denoise.schedule.at(share * r + (1 - share) * t)
    first, second, whole = (
        jump(objective, *ends) for ends in ((at, between), (between, to), (at, to))
    )
    middle = expand_to(between.alpha, batch.x0) * batch.x0
    middle = middle + expand_to(between.sigma, batch.x0) * batch.eps
    turned = velocity - objective.target(batch.x0, batch.eps, at)  # 0 without guidance
    middle = middle + expand_to(torch.as_tensor(first[1]), turned) * turned
    with rewound(batch.x.device):
        rest, _ = denoise.output(middle.to(batch.x.dtype), between, to)
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
