"""`GaussianDiffusion`: its parts and its training loss; sampling is in `sampling.py`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .conditions import Conditioner, Conditions, bind_batch, fit_statistics, flip_batch
from .denoisers import (
    Feedback,
    InputScaling,
    NetworkParts,
    NetworkSignature,
    TimeInput,
    chosen_conditions,
    preconditioning_for,
    shared_sigma_data,
)
from .losses import (
    LEVEL_NAMES,
    Loss,
    LossWeight,
    MinSNR,
    SampledLevels,
    TimeSampler,
    TrainingLoss,
    losses_by_level,
)
from .parts import resolve
from .parts.type_checks import typed
from .process.level import check_step_count
from .process.objectives import Objective
from .process.schedules import NoiseSchedule, Scaled, schedule_named
from .samplers.arguments import whole_number
from .samplers.defaults import default_sampler
from .sampling import DrawsSamples
from .spaces import DataSpace, ImageSpace
from .spaces.base import check_encoded, check_mask
from .spaces.statistics import KeepsStatistics
from .trainable import Batch


@final
class GaussianDiffusion(KeepsStatistics, DrawsSamples):
    """Diffusion model of images, or of samples of any other shape.

    `diffusion(data)` returns the training loss, `diffusion.sample(16)` new data. Both take data in
    the user's units. Every part may be given as an object or by its name.

    Args:
        model: Network, called as `model(x, time, **keywords)`; see `NetworkSignature`.
        timesteps: Number of steps of a discrete process, and of samplers that need all of them.
        use_ddim: Whether the default sampler is DDIM, else DDPM with the variance of the loss. None
            takes what a part proposes, or `Auto` with 20 network calls.
        noise_schedule: 'sigmoid', 'cosine', 'linear', another name, or a `NoiseSchedule`.
        objective: Meaning of the network's output: 'v', 'x0', 'eps', 'score', 'velocity',
            'previous_x', 'edm', or an `Objective`.
        schedule_kwargs: Options of a schedule given by name, such as start, end, tau, clip_min.
        time_difference: Time by which each sampler step goes further, in [0, 1) (Chen et al. 2023,
            "Analog bits").
        min_snr_loss_weight: Whether to weight the squared error of x0 by min(SNR, min_snr_gamma)
            (Hang et al. 2023). Without any weight, the loss is the plain error of the output.
        min_snr_gamma: Upper bound of the min-SNR weight.
        train_prob_self_cond: Share of training steps with self-conditioning, in [0, 1]. With 0,
            sampling does not use it either.
        scale: Factor of the clean data in the process, in (0, 1] (Chen 2023).
        sample_shape: Shape of one encoded sample; None takes the shape of the network.
        space: Encoding of data for the network; None for `ImageSpace()`, images in [0, 1].
        conditions: Conditioners, by the names of the values that users pass; None for all that the
            network is built for: `labels`, `image`, `vector`, `text` and `augmentation`.
        condition_dropout: Share of the samples that lose a condition in training, in [0, 1), each
            condition by itself. Guidance needs some. None is 0.1; `conditions` have their own.
        augmentation: Probability of each random transformation of training images, in [0, 1], for
            a network built with augmentation; None is 0.12.
        loss: Training loss: 'simple' (weighted squared error), 'bound' (variational), 'hybrid'
            (both, for a learned variance), 'flow_map', 'consistency' (few calls), or a `Loss`.
        loss_weight: Weight that replaces min-SNR: 'soft_min_snr', 'p2', 'edm', 'uniform',
            'likelihood', or a `LossWeight`.
        times: Distribution of training times: 'uniform', 'stratified', 'steps', 'loss_aware',
            'log_normal', 'logit_normal', or a `TimeSampler`. None takes that of the loss, or
            'uniform'.
        time_input: Number that tells the network its level: 'unit' (t in [0, 1]), 'steps' (0 to
            timesteps - 1), 'log_snr', 'sigma', 'c_noise', or a `TimeInput`. None takes that of the
            objective or the schedule, or 'unit'.
        input_scaling: Scaling of the network's input: 'unscaled', 'unit_variance',
            'measured_variance', or an `InputScaling`. None takes that of the objective or the
            schedule, or 'unscaled'.

    Raises:
        ValueError: If a name is unknown, an option is out of range, parts do not fit together, or
            the network does not tell the shape of its samples.
    """

    metric_names = ("validation_loss", *LEVEL_NAMES)
    time_memory: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        *,
        timesteps: int = 1000,
        use_ddim: bool | None = None,
        noise_schedule: str | NoiseSchedule = "sigmoid",
        objective: str | Objective = "v",
        schedule_kwargs: dict[str, float] | None = None,
        time_difference: float = 0.0,
        min_snr_loss_weight: bool = True,
        min_snr_gamma: float = 5.0,
        train_prob_self_cond: float = 0.9,
        scale: float = 1.0,
        sample_shape: Sequence[int] | None = None,
        space: DataSpace | None = None,
        conditions: dict[str, Conditioner] | None = None,
        condition_dropout: float | None = None,
        augmentation: float | None = None,
        loss: str | Loss = "simple",
        loss_weight: str | LossWeight | None = None,
        times: str | TimeSampler | None = None,
        time_input: str | TimeInput | None = None,
        input_scaling: str | InputScaling | None = None,
    ) -> None:
        super().__init__()
        check_step_count(timesteps := whole_number(timesteps, "timesteps"), "timesteps")
        _check("time_difference", time_difference, 0 <= time_difference < 1, "in [0, 1)")
        _check("scale", scale, 0 < scale <= 1, "in (0, 1]")
        self.train_prob_self_cond = share = train_prob_self_cond
        _check("train_prob_self_cond", share, 0 <= share <= 1, "in [0, 1]")
        self.model, self.timesteps, self.time_difference = model, timesteps, time_difference
        self.signature = NetworkSignature.of(model, sample_shape)
        self.space = ImageSpace() if space is None else space
        self.space.build(self.sample_shape)
        shares = condition_dropout, augmentation
        conditions = chosen_conditions(conditions, self.signature, self.space, *shares)
        self.signature.check_conditions({k: c.keywords for k, c in conditions.items()})
        self.conditions = Conditions(conditions, self.sample_shape, self.argument_names())
        schedule = schedule_named(noise_schedule, schedule_kwargs or {}, timesteps)
        self.schedule: NoiseSchedule = schedule if scale == 1 else Scaled(schedule, scale)
        known: Any = {"schedule": self.schedule, "steps": timesteps, "bins": self.space.bins}
        known["sigma_data"] = shared_sigma_data(
            self.space.sigma_data, objective, input_scaling, loss_weight
        )
        self.objective = resolve(objective, Objective, "objective", **known)
        self.objective.check(self.schedule)
        known["objective"] = self.objective
        self.preconditioning = preconditioning_for(
            time_input=time_input, input_scaling=input_scaling, **known
        )
        weight = loss_weight or (MinSNR(min_snr_gamma) if min_snr_loss_weight else None)
        named: Any = () if weight is None else (weight, LossWeight, "loss_weight")
        self.loss_weight: LossWeight | None = resolve(*named, **known) if named else None
        self.loss = resolve(loss, Loss, "loss", **known)
        self.times = resolve(times or self.loss.times or "uniform", TimeSampler, "times", **known)
        self.loss.check(self.parts, self.times.fixed_steps, self.conditions)
        parts: Any = self.objective, self.loss, self.space, self.schedule
        how: Any = {"variance": self.loss.variance, "sigma_data": known["sigma_data"]}
        self.sampler = default_sampler(use_ddim, *parts, gaps=time_difference > 0, **how)
        # Recent losses, on which the times may depend. They are saved with the weights.
        self.register_buffer("time_memory", self.times.memory(self.schedule))

    @property
    def parts(self) -> NetworkParts:
        """The network and the parts that give it a meaning; see `DrawsSamples`."""
        return NetworkParts(
            self.model,
            self.signature,
            self.schedule,
            self.objective,
            self.space,
            self.preconditioning,
            feedback=Feedback(float(self.train_prob_self_cond > 0)),
        )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one encoded sample, without the batch."""
        return self.signature.sample_shape

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the network, or None."""
        return self.signature.num_classes

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Whether `prepare` changes data."""
        return self.space.prepares

    def describe(self) -> dict[str, str]:
        parts = {"objective": self.objective, "schedule": self.schedule, "space": self.space}
        told = ", ".join(f"{name} {type(part).__name__}" for name, part in parts.items())
        return {**super().describe(), "model": ", ".join([told, *self.conditions])}

    def check(self, data: Tensor, *, mask: Tensor | None = None, **condition: Any) -> None:
        """Checks data and conditions; see `Trainable`."""
        if self.space.needs_fit:
            self.signature.check_sample(self.space.prepare(data))
        else:
            check_encoded(data, self.encode(data, condition))
        self.conditions.check(condition, len(data))
        if mask is not None:
            check_mask(self.space.prepare_mask(mask, self.sample_shape), self.sample_shape)

    def fit(self, batches: Iterable[Batch]) -> None:
        fit_statistics(self.space, self.conditions, batches)

    def prepare(self, data: Tensor) -> Tensor:
        """Returns data after the costly, constant part of its encoding; see `Trainable`."""
        return self.space.prepare(data)

    def flip(self, data: Tensor, condition: Mapping[str, Any], where: Tensor) -> Batch:
        """Flips images with their conditions and mask; see `Trainable`."""
        return flip_batch(self.space, self.conditions, data, condition, where)

    def views(self, condition: Mapping[str, Any]) -> Mapping[str, Tensor | list[str]]:
        """Returns conditions as users see them; see `Trainable`."""
        return self.conditions.shown_values(condition)

    @typed
    def forward(
        self,
        data: Shaped[Tensor, "batch *shape"],
        *,
        generator: torch.Generator | None = None,
        self_condition_draw: float | None = None,
        progress: float = 1.0,
        mask: Bool[Tensor, "batch *counted"] | None = None,
        prepared: bool = False,
        **condition: Any,
    ) -> Float[Tensor, ""]:
        """Returns the training loss, the mean over the batch.

        Training mode drops conditions, augments images, and records losses for the times.

        Args:
            data: Data in the user's units, [batch, ...].
            generator: Generator of all random numbers; None for PyTorch's default generator.
            self_condition_draw: Uniform number in [0, 1). If it is below train_prob_self_cond, a
                network with self-conditioning sees its own estimate of x0. Several processes must
                pass the same number, as the Trainer does; with None, it is drawn here.
            progress: Completed share of training, in [0, 1].
            mask: False where errors do not count, over the leading dimensions of data.
            prepared: Whether data has already passed `prepare`.
            condition: Values of the conditions by name.

        Raises:
            ValueError: If the shape of the data is not that of the network or, on the CPU, if data
                or conditions are out of range.
        """
        options = {"generator": generator, "self_condition_draw": self_condition_draw}
        x0 = self.encode(data, condition, prepared=prepared)
        losses, sampled = self._losses(x0, condition, mask, progress=progress, **options)
        if self.training and self.time_memory is not None:
            memory = self.times.remember(self.time_memory, sampled, losses.detach())
            self.time_memory.copy_(memory)
        return sampled.weighted(losses).mean()

    def _losses(
        self, x0: Tensor, condition: Mapping[str, Any], mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, SampledLevels]:
        """Returns the loss of each sample, [batch], and its level; see `TrainingLoss`."""
        if mask is not None:
            mask = check_mask(self.space.prepare_mask(mask, self.sample_shape), self.sample_shape)
        how: Any = {"training": self.training, "generator": options["generator"]}
        x0, mask, bound = bind_batch(self.conditions, condition, x0, mask, **how)
        share, memory = self.train_prob_self_cond, self.time_memory
        loss = TrainingLoss(self.parts, self.loss, self.times, self.loss_weight, share, memory)
        return loss(x0, bound, mask=mask, **options)

    def encode(
        self, data: Tensor, condition: Mapping[str, Any], *, prepared: bool = False
    ) -> Tensor:
        """Returns clean samples x0 for data; see `DrawsSamples`."""
        x0 = self.space.encode(data if prepared else self.space.prepare(data), condition)
        self.signature.check_sample(x0)
        return x0.to(self.parts.exact_dtype)

    @torch.no_grad()
    def validation_metrics(
        self, data: Tensor, *, generator: torch.Generator | None = None, **condition: Any
    ) -> dict[str, Tensor]:
        """Returns `validation_loss`, the training loss, and its parts by noise level.

        A network with self-conditioning sees its own estimate, if it was trained so.
        """
        mask, options = condition.pop("mask", None), {"generator": generator, "progress": 1.0}
        x0 = self.encode(data, condition)
        losses, sampled = self._losses(x0, condition, mask, self_condition_draw=0.0, **options)
        by_level = losses_by_level(losses, sampled.at.log_snr)
        return {"validation_loss": sampled.weighted(losses), **by_level}


def _check(name: str, value: float, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"Expected {name} {expected}, got {value}. Fix: choose another value.")
