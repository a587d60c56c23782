"""`GaussianDiffusion`: a network, a schedule, an objective and a loss as one module to train and to sample from."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import objectives, schedules
from .checkpoint import Checkpoint
from .config import Configurable, from_config
from .denoiser import Clip, Denoiser, Mapped, NetworkDenoiser, Threshold, feeds_back
from .grids import (
    Grid,
    grid_of_log_snrs,
    grid_of_times,
    optimal_log_snrs,
    respaced_times,
    uniform_log_snrs,
    uniform_times,
)
from .losses import MinSNR, draw_uniform_times, output_weight
from .noise import generator_noise, mix, per_sample_noise
from .objectives import Objective
from .samplers import DDIM, DDPM, Sampler, Snapshot, trajectory
from .schedules import NoiseSchedule, Scaled

KeepInRange = bool | Literal["dynamic"] | Callable[[Tensor], Tensor]


class GaussianDiffusion(Configurable, nn.Module):
    """A diffusion model of images in [0, 1].

    `diffusion(images)` is the training loss, `diffusion.sample(16)` gives images, `diffusion.denoiser()` is what
    samplers see. Training time is continuous; `timesteps` is the number of steps that sampling takes by default.

    Args:
        model: The network, called as `model(x, time, self_cond=..., latents=..., **condition)`; it has `channels` and
            `image_size`, and need not take the keywords it has no use for.
        timesteps: Sampling steps unless `sample` is told otherwise.
        use_ddim: Sample with DDIM by default, else with DDPM.
        noise_schedule: A name ('sigmoid', 'cosine', 'linear'; all in `schedules.by_name`), or a `NoiseSchedule`.
        objective: What the network predicts: 'v', 'x0' or 'eps', or an `Objective`.
        schedule_kwargs: Options of a schedule given by name (start, end, tau, clip_min).
        time_difference: Each sampling step goes this much further, in units of time (Chen et al. 2023, "Analog bits").
        min_snr_loss_weight: Weigh the loss by min(snr, min_snr_gamma) (Hang et al. 2023); else the plain error of the
            network's output.
        min_snr_gamma: See min_snr_loss_weight.
        train_prob_self_cond: Share of training steps, in [0, 1], that condition a network on its own first estimate;
            with 0, sampling does not either.
        scale: Factor of the images in the noised input, in (0, 1]; below 1 that input is divided by its standard
            deviation, sample by sample, before the network sees it (Chen 2023, sec. 2.3).

    Raises:
        ValueError: an unknown name, an option out of range, or a network without `channels` and `image_size`.
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
    ) -> None:
        super().__init__()
        if not (hasattr(model, "channels") and hasattr(model, "image_size")):
            raise ValueError(f"the network needs `channels` and `image_size`; {type(model).__name__} lacks them")
        if not 0 < scale <= 1:
            raise ValueError(f"scale must lie in (0, 1]; got {scale}")
        if not 0 <= train_prob_self_cond <= 1:
            raise ValueError(f"train_prob_self_cond must lie in [0, 1]; got {train_prob_self_cond}")
        if not 0 <= time_difference < 1:
            raise ValueError(f"time_difference must lie in [0, 1), in units of time; got {time_difference}")
        uniform_times(timesteps)  # raises where that is no number of steps
        self.model = model
        self.timesteps, self.time_difference = timesteps, time_difference
        self.train_prob_self_cond, self.scale = train_prob_self_cond, scale
        schedule = _named(noise_schedule, schedules.by_name, "noise_schedule", schedule_kwargs or {})
        self.schedule: NoiseSchedule = schedule if scale == 1 else Scaled(schedule, scale)
        self.objective: Objective = _named(objective, objectives.by_name, "objective", {})
        self.loss_weight = MinSNR(min_snr_gamma) if min_snr_loss_weight else None
        self.sampler: Sampler = DDIM() if use_ddim else DDPM()

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        weights: str = "ema",
        model: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ) -> "GaussianDiffusion":
        """The diffusion model that a training run saved, in evaluation mode.

        Args:
            path: A results folder (its newest checkpoint is taken) or one checkpoint folder.
            weights: 'ema' for the averaged weights, 'model' for the last ones.
            model: The network, if its class does not record its arguments (see `Configurable`).
            device: Where to put it.

        Raises:
            ValueError: no such checkpoint, a damaged one, or weights that do not fit the network.
        """
        checkpoint = Checkpoint.find(path)
        config = checkpoint.config["diffusion"]
        network = config["init_args"]["model"]
        if model is None and network["init_args"] is None:
            raise ValueError(
                f"{network['class_path']} does not record its arguments; pass from_checkpoint(..., model=...), "
                "or derive the network from diffusion_framework.Configurable"
            )
        if model is not None:
            diffusion = cls(model, **{k: v for k, v in config["init_args"].items() if k != "model"})
        else:
            diffusion = from_config(config, cls)
        checkpoint.load_weights(diffusion, weights)
        return diffusion.to(device).eval()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width)."""
        size: Any = self.model.image_size
        channels: Any = self.model.channels
        return (channels, *((size, size) if isinstance(size, int) else size))

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def self_conditions(self) -> bool:
        """Whether training ever gives the network its own estimates."""
        return self.train_prob_self_cond > 0 and any(feeds_back(self.model))

    def denoiser(self, **condition: Any) -> NetworkDenoiser:
        """A fresh denoiser with its conditions bound: one for each trajectory, as it may remember its last estimate."""
        return NetworkDenoiser(
            self.model,
            self.schedule,
            self.objective,
            condition,
            unit_input=self.scale < 1,
            feed_back=self.self_conditions,
        )

    @jaxtyped(typechecker=beartype)
    def forward(
        self,
        images: Float[Tensor, "batch *shape"],
        *,
        generator: torch.Generator | None = None,
        self_condition: bool | None = None,
        **condition: Any,
    ) -> Float[Tensor, ""]:
        """The training loss.

        Args:
            images: [batch, channels, height, width] in [0, 1].
            generator: Of the times and the noise; None is torch's default one.
            self_condition: Whether the network first makes an estimate that it then sees; None draws it, with
                probability train_prob_self_cond.
            condition: Passed on to the network (labels=...).

        Returns:
            The weighted mean squared error, a scalar.

        Raises:
            ValueError: images of another shape than the network's.
        """
        if images.shape[1:] != self.sample_shape:
            raise ValueError(f"images must be [batch, {', '.join(map(str, self.sample_shape))}]; got {[*images.shape]}")
        x0 = self.from_images(images)
        at = self.schedule.at(draw_uniform_times(len(x0), x0.device, generator))
        eps = generator_noise(generator)(x0)
        level = at.like(x0)
        x = level.alpha * x0 + level.sigma * eps

        denoise = self.denoiser(**condition)
        if self_condition is None:
            coin = torch.rand((), generator=generator, device=generator.device if generator else None)
            self_condition = bool(coin < self.train_prob_self_cond)
        if self_condition and self.self_conditions:
            with torch.no_grad():
                denoise(x, at)
        output, _ = denoise.output(x, at)
        error = F.mse_loss(output, self.objective.target(x0, eps, at), reduction="none").flatten(1).mean(dim=1)
        if self.loss_weight is not None:
            error = error * output_weight(self.loss_weight, self.objective, at).to(error.dtype)
        return error.mean()

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
            sampler: The sampler; None is DDIM(), or DDPM() with use_ddim=False.
            steps: Steps of the sampler, evenly spaced in time; None is `timesteps`; or a text such as 'ddim50'.
            grid: Other levels to walk, in place of steps (see `grid` and `diffusion_framework.grids`).
            seed: Of the noise. With a number, image i is the same for every batch_size (up to rounding in the
                network); a sequence gives each image a seed of its own; None draws from torch's default generator.
            clip_denoised: How each estimate of the clean images, in [-1, 1], is kept in range: cut off there (True), by
                dynamic thresholding ('dynamic'), by a function of yours, or not at all (False).
            progress: Show a progress bar.
            condition: Passed on to the network (labels=...).

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
        return self.to_images(last.x)

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
        if seed is None:
            noise = generator_noise()
        else:
            seeds = image_seeds(seed, range(batch_size)) if isinstance(seed, int) else seed
            noise = per_sample_noise(seeds, self.device)
        denoise = _bounded(self.denoiser(**condition), clip_denoised)
        x = noise(torch.empty(batch_size, *self.sample_shape, device=self.device)) * grid[0][0].sigma
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            walk = trajectory(sampler or self.sampler, denoise, x, grid, noise)
            yield from _checked(tqdm(walk, total=len(grid), desc="sampling", disable=not progress))
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

    @staticmethod
    def from_images(images: Tensor) -> Tensor:
        """[0, 1] to the range [-1, 1] that the network sees."""
        return images * 2 - 1

    @staticmethod
    def to_images(x: Tensor) -> Tensor:
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


def _named(value: Any, by_name: Mapping[str, type], keyword: str, options: Mapping[str, Any]) -> Any:
    if not isinstance(value, str):
        if options:
            raise ValueError(f"schedule_kwargs go with a schedule given by name; got the object {value} as well")
        return value
    if value not in by_name:
        raise ValueError(f"{keyword} must be one of {', '.join(by_name)}, or an object; got {value!r}")
    return by_name[value](**options)
