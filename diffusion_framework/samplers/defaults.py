"""The sampler of a model whose user names none."""

from typing import Any

from ..losses.base import Loss
from ..parts import resolve
from ..process.objectives import Objective
from ..process.schedules import NoiseSchedule
from ..spaces import DataSpace
from .base import Sampler

_LARGE_GAIN = 10.0


def default_sampler(
    use_ddim: bool | None,
    objective: Objective,
    loss: Loss,
    space: DataSpace,
    schedule: NoiseSchedule,
    *,
    gaps: bool,
    **known: Any,
) -> Sampler:
    """Returns DDIM or DDPM if the user asks for one, otherwise the sampler that a part proposes.

    Without a proposal, it is `Auto`.

    Args:
        use_ddim: Whether to take DDIM (true) or DDPM (false); None for the proposal.
        objective: Objective of the model, whose proposal counts first.
        loss: Training loss, whose proposal counts next.
        space: Data space, whose proposal counts last.
        schedule: Noise schedule, which tells with the objective how far errors of the network are
            magnified.
        gaps: Whether the steps leave gaps, which a sampler with memory cannot jump over.
        known: Options for samplers, such as the variance of DDPM.
    """
    proposed = objective.proposes.get("sampler") or loss.sampler or space.sampler
    name = proposed or ("ddim" if gaps else "auto")
    if use_ddim is not None:
        name = "ddim" if use_ddim else "ddpm"
    amplifies = objective.gain(schedule.at(1.0)) > _LARGE_GAIN
    return resolve(name, Sampler, "sampler", amplifies=amplifies, **known)
