"""`GaussianDiffusion`: a network, a schedule, an objective and a loss as one module to train and to sample from."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped
from torch import Tensor, nn
from tqdm.auto import tqdm
from typing_extensions import Self

from .denoiser import Clip, Denoiser, Mapped, Memoryless, NetworkDenoiser, Threshold, feeds_back
from .evaluation import Bound, Trace, flow_bits_per_dim, variational_bound
from .guidance import ClassifierFree
from .inversion import invert, slerp
from .labels import check_labels, drop_labels
from .losses import (
    Loss,
    LossWeight,
    MinSNR,
    Process,
    Times,
    Trial,
    losses_by_name,
    times_by_name,
    weights_by_name,
)
from .network_input import InputScaling, MeasuredVariance, TimeInput, input_scalings, time_inputs
from .process import objectives, schedules
from .process.level import Noise
from .process.noise import generator_noise, mix, per_sample_noise
from .process.objectives import Objective
from .process.posterior import Variance
from .process.schedules import NoiseSchedule, Scaled
from .samplers import DDIM, DDPM, Heun, Sampler, Snapshot, trajectory
from .samplers.grids import (
    Grid,
    grid_of_log_snrs,
    grid_of_times,
    optimal_log_snrs,
    respaced_times,
    uniform_angles,
    uniform_log_snrs,
    uniform_times,
)
from .storage.checkpoint import Checkpoint
from .storage.config import RecordsArguments, resolve

KeepInRange = bool | Literal["dynamic"] | Callable[[Tensor], Tensor]


class GaussianDiffusion(RecordsArguments, nn.Module):
    """A diffusion model of images in [0, 1], or of samples of any other shape in that range.

    `diffusion(images)` is the training loss, `diffusion.sample(16)` gives images, `diffusion.denoiser()` is what
    samplers see. Training time is continuous unless `times` says otherwise; `timesteps` is the number of steps that
    sampling takes by default. Of every part, a name or an object serves alike.

    Args:
        model: The network, called as `model(x, time, self_cond=..., latents=..., **condition)`; it has `channels` and
            `image_size`, or `sample_shape` where its samples are no images, and need not take the keywords it has no
            use for.
        timesteps: Sampling steps unless `sample` is told otherwise; and those of a process in fixed steps.
        use_ddim: Sample with DDIM by default, else with DDPM (of the variance that was trained).
        noise_schedule: A name ('sigmoid', 'cosine', 'linear'; all in `schedules.by_name`), or a `NoiseSchedule`.
        objective: What the network predicts: 'v', 'x0', 'eps', 'score', 'velocity', 'previous_x', 'edm', or an
            `Objective`.
        schedule_kwargs: Options of a schedule given by name (start, end, tau, clip_min).
        time_difference: Each sampling step goes this much further, in units of time (Chen et al. 2023, "Analog bits").
        min_snr_loss_weight: Weigh the loss by min(snr, min_snr_gamma) (Hang et al. 2023); else the plain error of the
            network's output.
        min_snr_gamma: See min_snr_loss_weight.
        train_prob_self_cond: Share of training steps, in [0, 1], that condition a network on its own first estimate;
            with 0, sampling does not either.
        scale: Factor of the images in the noised input, in (0, 1]; below 1 that input is divided by its standard
            deviation, sample by sample, before the network sees it (Chen 2023, sec. 2.3).
        loss: What training minimises: 'simple' (the weighted squared error), 'bound' (the variational bound), 'hybrid'
            (both, for a network that learns its variance), or a `Loss`.
        loss_weight: Of the squared error, in place of min-SNR's: 'soft_min_snr', 'p2', 'edm', 'uniform', 'likelihood',
            or a `LossWeight`.
        times: The levels to train at: 'uniform', 'stratified', 'steps', 'loss_aware', 'log_normal', 'logit_normal', or
            `Times`.
        time_input: How the network is told the level: 'unit' (t in [0, 1]), 'steps' (0 to timesteps - 1), 'log_snr',
            'c_noise', or a `TimeInput`.
        input_scaling: How the noised input is scaled before the network sees it: 'unit_variance' (which schedules with
            large sigma need), 'measured_variance', or an `InputScaling`; None as `scale` says.
        label_dropout: Share of labels, in [0, 1), that are replaced by the label num_classes, "no class", in training:
            above 0 for guidance.

    Raises:
        ValueError: an unknown name, an option out of range, parts that do not go together, or a network that does not
            tell the shape of its samples.
    """

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
        loss: str | Loss = "simple",
        loss_weight: str | LossWeight | None = None,
        times: str | Times = "uniform",
        time_input: str | TimeInput = "unit",
        input_scaling: str | InputScaling | None = None,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not (hasattr(model, "sample_shape") or (hasattr(model, "channels") and hasattr(model, "image_size"))):
            raise ValueError(
                f"the network needs `channels` and `image_size`, or `sample_shape`; {type(model).__name__} lacks them"
            )
        if not 0 < scale <= 1:
            raise ValueError(f"scale must lie in (0, 1]; got {scale}")
        if not 0 <= train_prob_self_cond <= 1:
            raise ValueError(f"train_prob_self_cond must lie in [0, 1]; got {train_prob_self_cond}")
        if not 0 <= label_dropout < 1:
            raise ValueError(f"label_dropout must lie in [0, 1); got {label_dropout}")
        if not 0 <= time_difference < 1:
            raise ValueError(f"time_difference must lie in [0, 1), in units of time; got {time_difference}")
        uniform_times(timesteps)  # raises where that is no number of steps
        self.model = model
        self.timesteps, self.time_difference = timesteps, time_difference
        self.train_prob_self_cond, self.scale, self.label_dropout = train_prob_self_cond, scale, label_dropout
        if label_dropout and self.num_classes is None:
            raise ValueError(f"label_dropout={label_dropout} needs a network with classes; set its num_classes")

        schedule = schedules.schedule_named(noise_schedule, schedule_kwargs or {})
        self.schedule: NoiseSchedule = schedule if scale == 1 else Scaled(schedule, scale)
        known = {"schedule": self.schedule, "steps": timesteps}
        self.objective: Objective = resolve(objective, objectives.by_name, "objective", **known)
        self.objective.check(self.schedule)
        self.time_input = resolve(time_input, time_inputs, "time_input", **known)
        self.input_scaling: InputScaling | None = MeasuredVariance() if scale < 1 else None
        if input_scaling is not None:
            self.input_scaling = resolve(input_scaling, input_scalings, "input_scaling")
        self.loss_weight: LossWeight | None = MinSNR(min_snr_gamma) if min_snr_loss_weight else None
        if loss_weight is not None:
            known["objective"] = self.objective
            self.loss_weight = resolve(loss_weight, weights_by_name, "loss_weight", **known)
        self.times: Times = resolve(times, times_by_name, "times", **known)
        self.loss: Loss = resolve(loss, losses_by_name, "loss")
        self.loss.check(self.schedule, self.times.fixed_steps, getattr(model, "learned_variance", False))
        self.sampler: Sampler = DDIM() if use_ddim else DDPM(self.loss.variance)
        # recent losses, where the times depend on them: saved with the weights, the same on all processes
        self.time_memory: Tensor | None
        self.register_buffer("time_memory", self.times.memory(self.schedule))

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        weights: str = "ema",
        model: nn.Module | None = None,
        device: torch.device | str = "cpu",
        trust: Collection[str] = (),
    ) -> Self:
        """The diffusion model that a training run saved, in evaluation mode.

        Args:
            path: A results folder (its newest checkpoint is taken) or one checkpoint folder.
            weights: 'ema' for the averaged weights, 'model' for the last ones.
            model: The network, if its class does not record its arguments (see `RecordsArguments`).
            device: Where to put it.
            trust: Packages, besides this one, whose classes the checkpoint may name. Their code then runs.

        Raises:
            ValueError: no such checkpoint, a damaged one, or weights that do not fit the network.
        """
        given = {} if model is None else {"model": model}
        diffusion = Checkpoint.find(path).build("diffusion", cls, weights, trust, **given)
        return diffusion.to(device).eval()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) of images, or the network's own `sample_shape`."""
        if hasattr(self.model, "sample_shape"):
            return tuple(self.model.sample_shape)  # type: ignore[arg-type]
        size: Any = self.model.image_size
        channels: Any = self.model.channels
        return (channels, *((size, size) if isinstance(size, int) else size))

    @property
    def num_classes(self) -> int | None:
        """Number of classes of labels that the network takes; None for a network without."""
        classes: Any = getattr(self.model, "num_classes", None)
        return classes

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def self_conditions(self) -> bool:
        """Whether training ever gives the network its own estimates."""
        return self.train_prob_self_cond > 0 and any(feeds_back(self.model))

    def denoiser(self, *, guidance: float = 1.0, **condition: Any) -> Denoiser:
        """A fresh denoiser with its conditions bound: one for each trajectory, as it may remember its last estimate.

        Args:
            guidance: Scale of classifier-free guidance; 1 for none (see `ClassifierFree`).
            condition: Passed on to the network. labels [batch] lie in [0, num_classes), or are num_classes for no class
                where that was trained, with label_dropout.

        Raises:
            ValueError: labels out of range, or guidance of a network that was not trained for it.
        """
        classes, labels = self.num_classes, condition.get("labels")
        if labels is not None and classes is not None:
            check_labels(labels, classes + (self.label_dropout > 0))
        denoise = self._network_denoiser(condition)
        if guidance == 1:
            return denoise
        if labels is None or classes is None or not self.label_dropout:
            raise ValueError(
                f"guidance={guidance} needs labels, and a network trained to do without them as well: set "
                "num_classes and label_dropout=0.1"
            )
        unconditional = self._network_denoiser({**condition, "labels": torch.full_like(labels, classes)})
        return ClassifierFree(denoise, unconditional, guidance)

    def _network_denoiser(self, condition: Mapping[str, Any]) -> NetworkDenoiser:
        parts = (self.schedule, self.objective, condition, self.time_input, self.input_scaling)
        return NetworkDenoiser(self.model, *parts, feed_back=self.self_conditions)

    @jaxtyped(typechecker=beartype)
    def forward(
        self,
        images: Float[Tensor, "batch *shape"],
        *,
        generator: torch.Generator | None = None,
        self_condition: bool | None = None,
        mask: Bool[Tensor, "batch *counted"] | None = None,
        **condition: Any,
    ) -> Float[Tensor, ""]:
        """The training loss.

        Args:
            images: [batch, channels, height, width] in [0, 1].
            generator: Of the times and the noise; None is torch's default one.
            self_condition: Whether the network first makes an estimate that it then sees; None draws it, with
                probability train_prob_self_cond.
            mask: [batch, ...], the leading dimensions of images: False where the error does not count, as in what
                only pads a sample. The mean is still over all, so that every part that counts weighs the same.
            condition: Passed on to the network (labels=...).

        Returns:
            The mean of `loss` over the batch, a scalar.

        Raises:
            ValueError: images of another shape than the network's, or labels (on the CPU) out of range.
        """
        if images.shape[1:] != self.sample_shape:
            raise ValueError(f"images must be [batch, {', '.join(map(str, self.sample_shape))}]; got {[*images.shape]}")
        x0 = self.from_images(images, **condition)
        draw = self.times.draw(
            self.schedule, self.times.uniform(len(x0), x0.device, generator), memory=self.time_memory
        )
        eps = generator_noise(generator)(x0)
        level = draw.at.expand_to(x0)
        x = level.alpha * x0 + level.sigma * eps

        if (labels := condition.get("labels")) is not None and self.num_classes is not None:
            if labels.device.type == "cpu":  # elsewhere, looking would wait for the device
                check_labels(labels, self.num_classes)
            condition["labels"] = drop_labels(labels, self.num_classes, self.label_dropout, generator)
        denoise = self._network_denoiser(condition)
        if self_condition is None:
            coin = torch.rand((), generator=generator, device=generator.device if generator else None)
            self_condition = bool(coin < self.train_prob_self_cond)
        if self_condition and self.self_conditions:
            with torch.no_grad():
                denoise(x, draw.at)
        output, variance = denoise.output(x, draw.at)
        process = Process(self.schedule, self.objective, self.loss_weight, self.times.fixed_steps)
        losses = self.loss.per_sample(Trial(x0, eps, x, draw.at, output, variance, mask), process)
        if self.training and self.time_memory is not None:
            self.time_memory.copy_(self.times.remember(self.time_memory, draw, losses.detach()))
        if draw.weight is not None:
            losses = losses * draw.weight.to(losses.dtype)
        return losses.mean()

    def fit(self, dataset: Any) -> None:
        """Learn from the training data what must be known before the first step; images need nothing."""

    @torch.no_grad()
    def validation_metrics(
        self, images: Tensor, *, generator: torch.Generator | None = None, **condition: Any
    ) -> dict[str, Tensor]:
        """Scalars that say how good the model is on data that it was not trained on, the smaller the better.

        Args:
            images: As for `forward`, like the rest.

        Returns:
            `validation_loss`: the training loss, with self-conditioning if training ever has it.
        """
        return {"validation_loss": self(images, generator=generator, self_condition=True, **condition)}

    @jaxtyped(typechecker=beartype)
    def sample(
        self,
        batch_size: int = 16,
        *,
        sampler: Sampler | None = None,
        steps: int | str | None = None,
        grid: Grid | None = None,
        seed: int | Sequence[int] | None = None,
        clip_denoised: KeepInRange = True,
        progress: bool = True,
        **condition: Any,
    ) -> Float[Tensor, "batch *shape"]:
        """New images.

        Args:
            batch_size: Number of images.
            sampler: The sampler; None is DDIM(), or with use_ddim=False DDPM, with the variance of the loss.
            steps: Steps of the sampler, evenly spaced in time; None is `timesteps`; or a text such as 'ddim50'.
            grid: Other levels to walk, in place of steps (see `grid` and `diffusion_framework.samplers.grids`).
            seed: Of the noise. With a number, image i is the same for every batch_size (up to rounding in the
                network); a sequence gives each image a seed of its own; None draws from torch's default generator.
            clip_denoised: How each estimate of the clean images, in [-1, 1], is kept in range: cut off there (True), by
                dynamic thresholding ('dynamic'), by a function of yours, or not at all (False).
            progress: Show a progress bar.
            condition: Passed on to `denoiser` (labels=..., guidance=...).

        Returns:
            [batch, channels, height, width] in [0, 1], on the device of the network.

        Raises:
            ValueError: fewer than one image or step, or seeds that are not one an image.
            FloatingPointError: the network gave NaN or infinity; names the step where it first did.
        """
        snapshots = self.snapshots(
            batch_size,
            sampler=sampler,
            steps=steps,
            grid=grid,
            seed=seed,
            clip_denoised=clip_denoised,
            progress=progress,
            **condition,
        )
        for snapshot in snapshots:
            last = snapshot
        return self.to_images(last.x, **condition)

    @torch.no_grad()
    def snapshots(
        self,
        batch_size: int = 16,
        *,
        sampler: Sampler | None = None,
        steps: int | str | None = None,
        grid: Grid | None = None,
        seed: int | Sequence[int] | None = None,
        clip_denoised: KeepInRange = True,
        progress: bool = True,
        **condition: Any,
    ) -> Iterator[Snapshot]:
        """Sampling step by step: yields a `Snapshot` after each; arguments as for `sample`.

        `to_images(snapshot.x0)` is the estimate of the final images so far. The network is in evaluation mode until
        the iterator ends or is closed.
        """
        if batch_size < 1:
            raise ValueError(f"sampling needs a batch_size of at least 1; got {batch_size}")
        if grid is None:
            grid = self.grid(steps)
        elif steps is not None:
            raise ValueError(f"give steps or a grid, not both; got steps={steps} and a grid of {len(grid)}")
        if self.time_difference and (sampler or self.sampler).init(len(grid)) is not None:
            raise ValueError(
                f"time_difference goes with samplers that remember nothing, as DDIM and DDPM; got {sampler}"
            )
        noise = self._noise(seed, batch_size)
        denoise = _bounded(self.denoiser(**condition), clip_denoised)
        x = noise(torch.empty(batch_size, *self.sample_shape, device=self.device)) * grid[0][0].sigma
        with self._evaluating():
            walk = trajectory(sampler or self.sampler, denoise, x, grid, noise)
            yield from _checked(tqdm(walk, total=len(grid), desc="sampling", disable=not progress))

    def bits_per_dim(
        self,
        images: Tensor,
        *,
        variance: Variance | None = None,
        steps: int | str | None = None,
        grid: Grid | None = None,
        seed: int | Sequence[int] | None = None,
        clip_denoised: KeepInRange = True,
        progress: bool = False,
        **condition: Any,
    ) -> Bound:
        """How likely the model finds 8-bit images, by the variational bound (see `evaluation.variational_bound`).

        A network with self-conditioning is asked without it.

        Args:
            images: [batch, channels, height, width] in [0, 1], in steps of 1 / 255.
            variance: Of the reverse steps: 'small', 'large', or 'learned' or 'learned_range' if the network learned it;
                None as in training (see `Loss.variance`).
            steps: As for `sample`, without its time_difference; or a grid to the clean end.
            seed: Of the noise, as for `sample`.
            clip_denoised: Keep each estimate of the clean images in range.

        Returns:
            The bound in bits per dimension; `.total` is [batch].
        """
        if grid is None:
            steps = self.timesteps if steps is None else steps
            times = respaced_times(steps, self.timesteps) if isinstance(steps, str) else uniform_times(steps)
            grid = grid_of_times(self.schedule, times)
        elif steps is not None:
            raise ValueError(f"give steps or a grid, not both; got steps={steps} and a grid of {len(grid)}")
        denoise = _bounded(self._memoryless(condition), clip_denoised)
        x0, noise = self.from_images(images), self._noise(seed, len(images))
        with self._evaluating():
            return variational_bound(denoise, x0, grid, noise, variance or self.loss.variance, progress=progress)

    def flow_bits_per_dim(
        self,
        images: Tensor,
        *,
        trace: Trace = "rademacher",
        tolerance: float = 1e-5,
        sigma_min: float = 1e-3,
        seed: int | Sequence[int] | None = None,
        **condition: Any,
    ) -> Tensor:
        """How likely the probability flow finds 8-bit images; [batch], in bits per dimension.

        Each is spread evenly over its step of 1 / 255. Arguments as for `evaluation.flow_bits_per_dim`; images and seed
        as for `bits_per_dim`.
        """
        x0, noise = self.from_images(images), self._noise(seed, len(images))
        with self._evaluating():
            return flow_bits_per_dim(
                self._memoryless(condition), x0, noise, trace=trace, tolerance=tolerance, sigma_min=sigma_min
            )

    @torch.no_grad()
    def invert(self, images: Tensor, *, steps: int = 200, sampler: Sampler | None = None, **condition: Any) -> Tensor:
        """The standard normal noise [batch, ...] that `decode` turns into these images [batch, ...] in [0, 1].

        Args:
            images: [batch, channels, height, width] in [0, 1].
            steps: Steps, even in the angle of the probability flow.
            sampler: Without noise or memory; None is Heun(), whose round trip is far closer than that of DDIM().
            condition: Passed on to the network (labels=...).
        """
        grid = self._flow_grid(steps)
        with self._evaluating():
            x = invert(self._memoryless(condition), self.from_images(images), grid, sampler or Heun())
        return x / grid[0][0].sigma

    @torch.no_grad()
    def decode(self, latents: Tensor, *, steps: int = 200, sampler: Sampler | None = None, **condition: Any) -> Tensor:
        """Images in [0, 1] from standard normal noise, both [batch, ...]: the way back of `invert`, without
        self-conditioning, which would not let it be one."""
        grid = self._flow_grid(steps)
        denoise, noise = self._memoryless(condition), generator_noise()
        with self._evaluating():
            for snapshot in trajectory(sampler or Heun(), denoise, latents * grid[0][0].sigma, grid, noise):
                x = snapshot.x
        return self.to_images(x / grid[-1][1].alpha)

    def interpolate(
        self,
        first: Tensor,
        second: Tensor,
        *,
        count: int = 8,
        steps: int = 200,
        sampler: Sampler | None = None,
        **condition: Any,
    ) -> Tensor:
        """Images between pairs of images [batch, ...] in [0, 1], both ends included: [batch, count, ...].

        Their noises are joined by great circles (Song et al. 2021, sec. 5.3); further arguments as for `invert`.

        Raises:
            ValueError: count is below 2.
        """
        if count < 2:
            raise ValueError(f"count must be at least 2, the two ends; got {count}")
        a, b = (self.invert(images, steps=steps, sampler=sampler, **condition) for images in (first, second))
        between = [slerp(a, b, i / (count - 1)) for i in range(count)]
        return torch.stack([self.decode(z, steps=steps, sampler=sampler, **condition) for z in between], dim=1)

    def _flow_grid(self, steps: int) -> Grid:
        return grid_of_log_snrs(self.schedule, uniform_angles(self.schedule, steps), clean=False)

    def _memoryless(self, condition: Mapping[str, Any]) -> Memoryless:
        return Memoryless(lambda: self.denoiser(**condition))

    def _noise(self, seed: int | Sequence[int] | None, batch_size: int) -> Noise:
        if seed is None:
            return generator_noise()
        seeds = image_seeds(seed, range(batch_size)) if isinstance(seed, int) else seed
        return per_sample_noise(seeds, self.device)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """In evaluation mode, and afterwards as before."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def grid(self, steps: int | str | None = None, spacing: Literal["time", "log_snr", "optimal"] = "time") -> Grid:
        """The levels that `sample` walks, from t = 1 to the clean end.

        Args:
            steps: Number of steps; None is `timesteps`; a text such as 'ddim50' or '10,15,20' chooses among them
                (Nichol & Dhariwal 2021).
            spacing: Steps even in time, even in log-SNR, or placed so as to minimise a bound on a solver's error.

        Raises:
            ValueError: fewer than one step, or an unknown text or spacing.
        """
        if isinstance(steps, str):
            return grid_of_times(self.schedule, respaced_times(steps, self.timesteps), self.time_difference)
        steps = self.timesteps if steps is None else steps
        if spacing == "time":
            return grid_of_times(self.schedule, uniform_times(steps), self.time_difference)
        if self.time_difference:
            raise ValueError(f"time_difference goes with steps even in time; got spacing={spacing!r}")
        if spacing not in ("log_snr", "optimal"):
            raise ValueError(f"spacing must be time, log_snr or optimal; got {spacing!r}")
        log_snrs = uniform_log_snrs if spacing == "log_snr" else optimal_log_snrs
        return grid_of_log_snrs(self.schedule, log_snrs(self.schedule, steps))

    def from_images(self, images: Tensor, **condition: Any) -> Tensor:
        """[0, 1] to the range [-1, 1] that the network sees."""
        return images * 2 - 1

    def to_images(self, x: Tensor, **condition: Any) -> Tensor:
        """The network's range [-1, 1] to [0, 1], cut off there."""
        return ((x + 1) / 2).clamp(0, 1)


def image_seeds(seed: int, indices: Sequence[int]) -> list[int]:
    """The seeds of images number `indices` among those that `sample(seed=seed)` makes."""
    return [mix(seed, index) for index in indices]


def _bounded(denoise: Denoiser, how: KeepInRange) -> Denoiser:
    """The denoiser with its clean data kept in range; see `sample`."""
    if how is False:
        return denoise
    change = {True: Clip(), "dynamic": Threshold()}.get(how, how) if isinstance(how, bool | str) else how
    if not callable(change):
        raise ValueError(f"clip_denoised must be True, False, 'dynamic' or a function of the clean data; got {how!r}")
    return Mapped(denoise, change)


def _checked(walk: Iterable[Snapshot]) -> Iterator[Snapshot]:
    """The same snapshots, and FloatingPointError for one that is not finite: at the end, where asking would wait."""
    times: list[float] = []
    finite: list[Tensor] = []
    for snapshot in walk:
        times.append(snapshot.now.t)
        finite.append(torch.isfinite(snapshot.x).all())
        if snapshot.x.device.type == "cpu" and not finite[-1]:
            break
        yield snapshot
    good = torch.stack(finite).tolist()
    if not all(good):
        first = good.index(False)
        raise FloatingPointError(
            f"the network gave NaN or infinity in step {first + 1} of sampling, at time {times[first]:.3g}; take an "
            "earlier checkpoint if its training diverged, or sample in float32 if it overflowed"
        )
