"""`GaussianDiffusion`: parts to a training loss, a denoiser and samples."""

import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, final

import torch
from beartype import beartype
from jaxtyping import Bool, Float, Shaped, jaxtyped
from torch import Tensor, nn
from tqdm.auto import tqdm

from .conditions import Conditioner, Conditions, fit_statistics
from .denoisers import (
    Denoiser,
    Guidance,
    InputScaling,
    KeepInRange,
    NetworkDenoiser,
    NetworkParts,
    NetworkSignature,
    TimeInput,
    as_guidance,
    clipped,
    preconditioning_for,
    shared_sigma_data,
)
from .losses import Loss, LossWeight, MinSNR, NoisedBatch, TimeSampler
from .parts import resolve
from .process.level import Level, check_step_count
from .process.noise import generator_noise, noise_source
from .process.objectives import Objective
from .process.schedules import NoiseSchedule, Scaled, schedule_named
from .samplers import DDPM, Sampler, Snapshot, Walk, checked, choose_grid, first_noise, trajectory
from .samplers.grids import Grid, Spacing, grid_of_times, respaced_times, spaced_grid
from .spaces import DataSpace, ImageSpace
from .spaces.statistics import KeepsStatistics
from .trainable import Batch, Trainable


@final
class GaussianDiffusion(KeepsStatistics, Trainable):
    """A diffusion model of images, or of samples of any other shape.

    `diffusion(data)` is the training loss and `diffusion.sample(16)` gives data, both in the user's
    units. Wherever a part is expected, its name serves as well.

    Args:
        model: The network, called as `model(x, time, **keywords)`; see `NetworkSignature`.
        timesteps: Sampler steps by default; and steps of a process in discrete time.
        use_ddim: Whether to sample with DDIM by default, else with DDPM and the loss's variance.
        noise_schedule: 'sigmoid', 'cosine', 'linear', another name, or a `NoiseSchedule`.
        objective: What the network predicts: 'v', 'x0', 'eps', 'score', 'velocity', 'previous_x',
            'edm', or an `Objective`.
        schedule_kwargs: Options of a schedule given by name (start, end, tau, clip_min).
        time_difference: How much further each sampler step goes, in units of time (Chen et al.
            2023, "Analog bits").
        min_snr_loss_weight: Whether the squared error of x0 has the weight min(snr, min_snr_gamma)
            (Hang et al. 2023); without any weight, the plain error of the output counts.
        min_snr_gamma: Largest such weight.
        train_prob_self_cond: Share of training steps, in [0, 1], in which the network sees its own
            first estimate; with 0, sampling does not feed it back either.
        scale: Factor of the clean data, in (0, 1] (Chen 2023).
        sample_shape: Shape of one encoded sample; None is the network's.
        space: Maps data to what the network sees; None is `ImageSpace()`, for images in [0, 1].
        conditions: What the network is told, by the name of the value that users give; None is
            `labels` for a network with classes.
        label_dropout: Share of these labels, in [0, 1), replaced by "no class" in training; above
            0 for guidance.
        loss: What training minimises: 'simple' (the weighted squared error), 'bound' (the
            variational bound), 'hybrid' (both, to learn the variance), or a `Loss`.
        loss_weight: Weight in place of min-SNR's: 'soft_min_snr', 'p2', 'edm', 'uniform',
            'likelihood', or a `LossWeight`.
        times: Levels to train at: 'uniform', 'stratified', 'steps', 'loss_aware', 'log_normal',
            'logit_normal', or a `TimeSampler`; None is what the loss proposes, else 'uniform'.
        time_input: How the network is told the level: 'unit' (t in [0, 1]), 'steps' (0 to
            timesteps - 1), 'log_snr', 'c_noise', or a `TimeInput`; None is what the objective or
            the schedule propose, else 'unit'.
        input_scaling: How the network's input is scaled: 'unscaled', 'unit_variance',
            'measured_variance', or an `InputScaling`; None as for time_input, else 'unscaled'.

    Raises:
        ValueError: an unknown name, an option out of range, parts that do not go together, or a
            network that does not tell the shape of its samples.
    """

    time_memory: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        *,
        timesteps: int = 1000,
        use_ddim: bool = True,
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
        label_dropout: float = 0.0,
        loss: str | Loss = "simple",
        loss_weight: str | LossWeight | None = None,
        times: str | TimeSampler | None = None,
        time_input: str | TimeInput | None = None,
        input_scaling: str | InputScaling | None = None,
    ) -> None:
        super().__init__()
        check_step_count(timesteps, "timesteps")
        _check("time_difference", time_difference, 0 <= time_difference < 1, "in [0, 1)")
        _check("scale", scale, 0 < scale <= 1, "in (0, 1]")
        share = train_prob_self_cond
        _check("train_prob_self_cond", share, 0 <= share <= 1, "in [0, 1]")
        fits = conditions is None or label_dropout == 0
        _check("label_dropout", label_dropout, fits, "0 with conditions, which have their own")
        self.model, self.timesteps, self.time_difference = model, timesteps, time_difference
        self.train_prob_self_cond = train_prob_self_cond
        self.signature = NetworkSignature.of(model, sample_shape)
        self.space = ImageSpace() if space is None else space
        self.space.build(self.sample_shape)
        if conditions is None:
            conditions = self.signature.default_conditions(label_dropout)
        self.signature.check_conditions({k: c.keywords for k, c in conditions.items()})
        self.conditions = Conditions(conditions, self.sample_shape, RESERVED)

        schedule = schedule_named(noise_schedule, schedule_kwargs or {})
        self.schedule: NoiseSchedule = schedule if scale == 1 else Scaled(schedule, scale)
        known: dict[str, Any] = {"schedule": self.schedule, "steps": timesteps}
        known["bins"] = self.space.bins
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
        self.loss_weight: LossWeight | None = None
        if weight is not None:
            self.loss_weight = resolve(weight, LossWeight, "loss_weight", **known)
        self.loss = resolve(loss, Loss, "loss", **known)
        self.times = resolve(times or self.loss.times or "uniform", TimeSampler, "times", **known)
        self.loss.check(self.parts, self.times.fixed_steps)
        default = (self.loss.sampler or "ddim") if use_ddim else DDPM(self.loss.variance)
        self.sampler: Sampler = resolve(default, Sampler, "sampler")
        # Recent losses, if the times depend on them: saved with the weights.
        self.register_buffer("time_memory", self.times.memory(self.schedule))

    @property
    def parts(self) -> NetworkParts:
        """What denoisers of this model share."""
        return NetworkParts(
            self.model,
            self.signature,
            self.schedule,
            self.objective,
            self.preconditioning,
            self.space.bounds,
            feeds_back=self.train_prob_self_cond > 0,
        )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one encoded sample, without the batch."""
        return self.signature.sample_shape

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The network."""
        return (self.model,)

    @property
    def num_classes(self) -> int | None:
        """Number of classes of labels that the network takes, or None."""
        return self.signature.num_classes

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Whether `prepare` changes data."""
        return self.space.prepares

    def check(self, data: Tensor, *, mask: Tensor | None = None, **condition: Any) -> None:
        """Raises ValueError for data or conditions that do not fit; see `Trainable`."""
        if not self.space.needs_fit:
            self.encode(data, condition)
        if not self.conditions.needs_fit:
            self.conditions.bind(condition, len(data))

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fits the statistics of space and conditions that are still unknown."""
        fit_statistics(self.space, self.conditions, batches)

    def prepare(self, data: Tensor) -> Tensor:
        """The costly, constant part of the way from data to the network."""
        return self.space.prepare(data)

    def flip(self, condition: Mapping[str, Any], where: Tensor) -> Mapping[str, Any]:
        """What came with data of which some samples are flipped horizontally."""
        return self.conditions.flip(condition, where)

    @jaxtyped(typechecker=beartype)
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
        """The training loss, the mean of `loss` over the batch.

        Args:
            data: [batch, ...] in the user's units.
            generator: For times, noise and the dropout of conditions; None is torch's default one.
            self_condition_draw: A number in [0, 1), the same on all processes. Below
                train_prob_self_cond the network first makes an estimate that it then sees. None
                draws it.
            progress: Share of training that is done, in [0, 1].
            mask: False where the error does not count, as in padding; [batch, ...], the leading
                dimensions of data.
            prepared: Whether data went through `prepare` already.
            condition: Values of the conditions, by name.

        Raises:
            ValueError: samples of another shape than the network's; on the CPU, data or
                conditions out of range.
        """
        parts = self.parts
        x0 = self.encode(data, condition, prepared=prepared)
        sampled = self.times.draw(
            self.schedule, self.times.uniform(len(x0), x0.device, generator), self.time_memory
        )
        eps = generator_noise(generator)(x0)
        level = sampled.at.expand_to(x0)
        x = level.alpha * x0 + level.sigma * eps
        bound = self.conditions.bind(condition, len(x0), drop=self.training, generator=generator)
        denoise = NetworkDenoiser(parts, bound)
        if self_condition_draw is None:
            place = "cpu" if generator is None else generator.device
            self_condition_draw = float(torch.rand((), generator=generator, device=place))
        if self_condition_draw < self.train_prob_self_cond and (parts.estimate or parts.latents):
            with torch.no_grad():
                denoise(x, sampled.at)
        if mask is not None:
            mask = self.space.prepare_mask(mask, self.sample_shape)
        steps, weight = self.times.fixed_steps, self.loss_weight
        batch = NoisedBatch(x0, eps, x, sampled.at, mask, weight, steps, progress, generator)
        losses = self.loss(denoise, batch)
        if self.training and self.time_memory is not None:
            memory = self.times.remember(self.time_memory, sampled, losses.detach())
            self.time_memory.copy_(memory)
        if sampled.weight is not None:
            losses = losses * sampled.weight.to(losses.dtype)
        return losses.mean()

    def encode(
        self, data: Tensor, condition: Mapping[str, Any], *, prepared: bool = False
    ) -> Tensor:
        """Data [batch, ...] in the user's units as the clean data that is noised.

        Raises:
            ValueError: data of another shape; on the CPU, data out of range.
        """
        x0 = self.space.encode(data if prepared else self.space.prepare(data), condition)
        self.signature.check_sample(x0)
        return x0.to(self.parts.exact_dtype)

    @torch.no_grad()
    def validation_metrics(
        self, data: Tensor, *, generator: torch.Generator | None = None, **condition: Any
    ) -> dict[str, Tensor]:
        """`validation_loss`: the training loss, self-conditioned if training ever is."""
        loss = self(data, generator=generator, self_condition_draw=0.0, **condition)
        return {"validation_loss": loss}

    def previews(
        self, count: int, *, seeds: Sequence[int], steps: int | None = None, **condition: Any
    ) -> Tensor | None:
        """Samples to look at, or None for data that has no picture; see `Trainable`."""
        samples = self.sample(count, seed=seeds, steps=steps, show_progress=False, **condition)
        return self.space.pictures(samples)

    @torch.no_grad()
    def denoiser(self, *, guidance: float | Guidance | None = None, **condition: Any) -> Denoiser:
        """A fresh denoiser told these conditions: one for each trajectory, as it remembers.

        Args:
            guidance: A `Guidance`, or the scale of classifier-free guidance; None is no guidance.
            condition: Values of the conditions, by name.

        Raises:
            ValueError: a wrong condition, or guidance of a network that was not trained for it.
        """
        with self.evaluating():
            bound = self.conditions.bind(condition)
        return as_guidance(guidance).bind(NetworkDenoiser(self.parts, bound))

    @torch.no_grad()
    def walk(
        self,
        batch_size: int = 16,
        *,
        sampler: str | Sampler | None = None,
        steps: int | str | None = None,
        calls: int | None = None,
        spacing: Spacing = "time",
        first: Level | None = None,
        last: Level | None = None,
        grid: Grid | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        noise_device: torch.device | str | None = None,
        noise: Tensor | None = None,
        start: Tensor | None = None,
        strength: float = 1.0,
        clip_denoised: KeepInRange = None,
        guidance: float | Guidance | None = None,
        **condition: Any,
    ) -> Walk:
        """Everything that sampling and editing need: the one place for their options.

        Args:
            batch_size: Number of samples.
            sampler: A sampler or its name; None is the model's own.
            steps: Sampler steps; None is `timesteps`; or a text such as 'ddim50' (see `grid`).
            calls: Budget of network calls in place of steps: as many steps as it allows.
            spacing: How steps are spaced; see `grid`, like first and last.
            grid: Other levels to walk, in place of steps.
            seed: A number, with which sample i is the same for every batch_size (up to rounding in
                the network); or one seed for each sample. None draws from `generator`.
            generator: For noise, in place of a seed; None is torch's default one.
            noise_device: Where noise is drawn; None is where the network is.
            noise: Standard normal noise [batch, ...] to start from; None draws it.
            start: Data [batch, ...] in the user's units to start from, noised to `strength`.
            strength: Time in (0, 1] at which the walk starts; below 1 it leaves out earlier steps.
            clip_denoised: How estimates of the clean data are kept in range: None clips them where
                the space has bounds; True insists on that; False does not; or 'dynamic'
                thresholding; or a function of clean data.
            guidance: As for `denoiser`, like condition.

        Raises:
            ValueError: an option out of range, or options that exclude each other.
        """
        batch_size = operator.index(batch_size)
        _check("batch_size", batch_size, batch_size >= 1, "at least 1")
        sampler = self.sampler if sampler is None else resolve(sampler, Sampler, "sampler")
        make = partial(self.grid, spacing=spacing, first=first, last=last)
        budget: dict[str, Any] = {"steps": steps, "calls": calls, "grid": grid}
        grid = choose_grid(sampler, self.schedule, make, strength=strength, **budget)
        source = noise_source(seed, generator, batch_size, noise_device or self.device)
        parts, shape = self.parts, (batch_size, *self.sample_shape)
        like = torch.empty(shape, device=self.device, dtype=parts.exact_dtype)
        x = first_noise(noise, source, like) * grid.start.sigma
        if start is not None:
            x = x + grid.start.alpha * self.encode(start.to(self.device), condition)
        with self.evaluating():
            bound = self.conditions.bind(condition, batch_size)
        rule = as_guidance(guidance)

        def fresh() -> Denoiser:
            return clipped(
                rule.bind(NetworkDenoiser(parts, bound)), clip_denoised, self.space.bounds
            )

        return Walk(fresh(), fresh, sampler, grid, source, x, self.space, condition)

    def sample(
        self, batch_size: int = 16, *, show_progress: bool = True, **walk_options: Any
    ) -> Tensor:
        """New data, [batch, ...] in the user's units, on the device of the network.

        Args:
            batch_size: Number of samples.
            show_progress: Whether to show a progress bar.
            walk_options: Options of `walk`, and values of the conditions by name.

        Raises:
            ValueError: a wrong option; see `walk`.
            FloatingPointError: the network gave NaN or infinity; names the step where it first did.
        """
        walk = self.walk(batch_size, **walk_options)
        total, hidden = len(walk.grid), not show_progress
        for snapshot in tqdm(self.trajectory(walk), total=total, desc="sampling", disable=hidden):
            last = snapshot
        return walk.decode(last.x, last.to)

    @torch.no_grad()
    def trajectory(self, walk: Walk) -> Iterator[Snapshot]:
        """Sampling step by step: yields a `Snapshot` after each.

        `walk.decode(snapshot.x0)` is the estimate of the final samples so
        far. The network is in evaluation mode until the iterator ends or is closed.
        """
        with self.evaluating():
            yield from checked(
                trajectory(walk.sampler, walk.denoise, walk.start, walk.grid, walk.noise)
            )

    def grid(
        self,
        steps: int | str | None = None,
        spacing: Spacing = "time",
        *,
        first: Level | None = None,
        last: Level | None = None,
    ) -> Grid:
        """Returns the levels that `sample` visits, to the clean end; see `spaced_grid`.

        Args:
            steps: Number of sampler steps; None uses `timesteps`. A respacing string such as
                'ddim50' or '10,15,20' chooses among `timesteps` (see `respaced_times`).
            spacing: Spacing of the steps: 'time', 'log_snr' or 'optimal'.
            first: Level where the first step starts; None starts at t = 1.
            last: Level where the last step starts; None uses the default of the spacing.

        Raises:
            ValueError: If an option is out of range or unknown.
        """
        gap = self.time_difference
        if isinstance(steps, str):
            return grid_of_times(self.schedule, respaced_times(steps, self.timesteps), gap)
        steps = self.timesteps if steps is None else operator.index(steps)
        return spaced_grid(
            self.schedule, steps, spacing, first=first, last=last, time_difference=gap
        )


def _check(name: str, value: float, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"Expected {name} {expected}, got {value}. Fix: choose another.")


RESERVED = {
    name
    for method in (GaussianDiffusion.forward, GaussianDiffusion.walk, GaussianDiffusion.sample)
    for name in inspect.signature(method).parameters
} - {"condition", "walk_options"}
"""Names that conditions cannot have."""
