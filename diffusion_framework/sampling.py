"""`DrawsSamples`: sampling from a network, and the one place of its options."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .conditions import Conditions
from .denoisers import (
    Denoiser,
    Guide,
    Guided,
    KeepInRange,
    NetworkDenoiser,
    NetworkParts,
    as_guidance,
    clipped,
)
from .parts import resolve
from .process.noise import noise_source
from .process.schedules import NoiseSchedule
from .progress import progress
from .samplers import Sampler, Snapshot, Walk, arguments, checked, choose_grid, first_noise
from .samplers.base import trajectory
from .samplers.choosing import make_grid
from .samplers.grids import Grid, NoiseLevel, Spacing, noise_scale
from .samplers.tuned_file import tuned_sampler
from .spaces import DataSpace
from .storage.config import to_config
from .trainable import Trainable


class DrawsSamples(Trainable, Guide, ABC):
    """Model that samples by walking a grid of noise levels with a denoiser.

    Attributes:
        conditions: Conditioners by name.
        sampler: Default sampler.
        schedule: Noise schedule.
        space: Encoding of data for the network.
        time_difference: Time by which each step goes further, in [0, 1).
        timesteps: Number of steps of the process.
        tuned_guidance: Description of the guidance that the sampler was tuned for, or None for any.
            Another guidance takes the sampler without its tuning.
    """

    conditions: Conditions
    sampler: Sampler
    schedule: NoiseSchedule
    space: DataSpace
    time_difference: float
    timesteps: int
    tuned_guidance: Any = None

    @property
    @abstractmethod
    def parts(self) -> NetworkParts:
        """The network and the parts that give it a meaning, which denoisers share."""

    @abstractmethod
    def encode(
        self, data: Tensor, condition: Mapping[str, Any], *, prepared: bool = False
    ) -> Tensor:
        """Returns clean samples x0 [batch, ...] for data [batch, ...] in the user's units.

        Args:
            data: Data in the user's units, [batch, ...].
            condition: Values of the conditions by name.
            prepared: Whether data has already passed `prepare`.

        Raises:
            ValueError: If the shape of the data does not fit or, on the CPU, its range.
        """

    @classmethod
    def argument_names(cls) -> set[str]:
        """Returns the names of the arguments of its methods, which conditions cannot have."""
        methods = (cls.forward, cls.walk, cls.sample)
        names = {name for method in methods for name in inspect.signature(method).parameters}
        return names - {"condition", "walk_options"}

    def use_tuned(self, folder: Path, weights: str) -> None:
        """Reads what `diffusion tune` found for the model; see `Trainable`."""
        self.sampler, self.tuned_guidance = tuned_sampler(self.sampler, self.parts, folder, weights)

    @torch.no_grad()
    def told(self, values: Mapping[str, Any], batch: int | None = None) -> NetworkDenoiser:
        known = {name: value for name, value in values.items() if name in self.conditions}
        with self.evaluating():
            bound = self.conditions.bind(known, batch, all_needed=batch is None)
            return NetworkDenoiser(self.parts, bound)

    @torch.no_grad()
    def denoiser(self, *, guidance: Guided | None = None, **condition: Any) -> Denoiser:
        """Returns a denoiser for one trajectory, with an empty memory.

        Args:
            guidance: `Guidance`, its name, or the scale of classifier-free guidance; None for none.
            condition: Values of the conditions by name.

        Raises:
            ValueError: If a condition does not fit, or the network was not trained for guidance.
        """
        with self.evaluating():
            bound = self.conditions.bind(condition)
            return as_guidance(guidance).bind(NetworkDenoiser(self.parts, bound))

    def check_options(self, names: Collection[str], sampler: Sampler | None = None) -> None:
        """Raises ValueError unless these names are options of `walk` and `sample`, or conditions.

        Args:
            names: Names of keyword arguments.
            sampler: Sampler whose fields the error may name; None for the default one.
        """
        known = [*[*inspect.signature(self.walk).parameters][:-1], "show_progress"]
        own = [name for name in names if name not in known]
        arguments.check_keywords(own, [*self.conditions], known, sampler or self.sampler)

    @torch.no_grad()
    def walk(
        self,
        batch_size: int = 16,
        *,
        sampler: str | Sampler | None = None,
        steps: int | str | None = None,
        calls: int | None = None,
        spacing: Spacing | None = None,
        first: NoiseLevel | None = None,
        last: NoiseLevel | None = None,
        grid: Grid | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        noise_device: torch.device | str | None = None,
        noise: Tensor | np.ndarray | None = None,
        start: Tensor | np.ndarray | None = None,
        strength: float = 1.0,
        clip_denoised: KeepInRange = None,
        guidance: Guided | None = None,
        self_conditioning: float | None = None,
        **condition: Any,
    ) -> Walk:
        """Returns a trajectory that is ready to run: all options of sampling and editing.

        Args:
            batch_size: Number of samples.
            sampler: Sampler or its name; None for the model's default, in most cases `Auto`.
            steps: Number of sampler steps, or a respacing string such as 'ddim50'; see `grid`. None
                takes the network calls that suit the sampler: 20, 50 for DDIM, or all `timesteps`
                for DDPM; see `Sampler.default_calls`.
            calls: Largest number of network calls, which replaces `steps`. Samplers differ in calls
                per step.
            spacing: Spacing of the steps; see `grid`.
            first: Level where the first step starts; see `grid`.
            last: Level where the last step starts; see `grid`.
            grid: Levels to visit, which replace `steps`.
            seed: Seed of the batch, or one seed for each sample; None draws from `generator`. With
                one seed, sample i is the same for every batch_size, up to rounding in the network.
            generator: Generator of all noise; None for PyTorch's default generator.
            noise_device: Device on which noise is drawn; None for the device of the network.
            noise: Standard normal noise to start from, [batch, ...]; None draws it.
            start: Data in the user's units, [batch, ...], which is noised to `strength` to start
                from.
            strength: Time in (0, 1] at which the walk starts. Earlier steps are left out.
            clip_denoised: Clipping of estimates of x0: None clips if the space has bounds, True
                requires bounds, False does not clip, 'dynamic' is dynamic thresholding. A function
                of x0 is applied to it.
            guidance: `Guidance`, its name, or the scale of classifier-free guidance; None for none.
            self_conditioning: Factor in [0, 1] of the last estimate that a network with
                self-conditioning sees; 0 feeds nothing back. None extrapolates its estimates to the
                level of each call, and multiplies them by 0.75 in less than 15 steps.
            condition: Values of the conditions by name, for each sample or one for all. One that is
                left out is "none", if it was trained with dropout.

        Raises:
            ValueError: If an option is unknown or out of range, or two options exclude each other.
        """
        batch_size = arguments.sample_count(batch_size)
        sampler = self.sampler if sampler is None else resolve(sampler, Sampler, "sampler")
        if self.tuned_guidance is not None and sampler == self.sampler:
            fits = to_config(as_guidance(guidance)) == self.tuned_guidance
            sampler = sampler if fits else sampler.untuned()
        self.check_options(condition, sampler)
        arguments.check_generator(generator)
        calls = None if calls is None else arguments.whole_number(calls, "calls")
        make = partial(self.grid, first=first, last=last, sampler=sampler)
        budget: dict[str, Any] = {"steps": steps, "calls": calls, "grid": grid, "spacing": spacing}
        grid = choose_grid(sampler, self.schedule, make, strength=strength, **budget)
        device = noise_device or self.device
        source = noise_source(arguments.plain_seed(seed), generator, batch_size, device)
        shape = (batch_size, *self.sample_shape)
        like = torch.empty(shape, device=self.device, dtype=self.parts.exact_dtype)
        x = first_noise(noise, source, like) * grid.start.sigma
        if start is not None:
            data = arguments.samples(start, batch_size, self.device, "start")
            x = x + grid.start.alpha * self.encode(data, condition)
        feedback = arguments.feedback(self_conditioning, len(grid), adaptive=sampler.adaptive)
        plain, rule = self.told(condition, batch_size).fed(feedback), as_guidance(guidance)

        def fresh() -> Denoiser:
            with self.evaluating():
                return clipped(rule.bind(plain.fresh()), clip_denoised, self.space.bounds)

        return Walk(fresh(), fresh, sampler, grid, source, x, self.space, condition)

    def sample(
        self, batch_size: int = 16, *, show_progress: bool = True, **walk_options: Any
    ) -> Tensor:
        """Returns new data in the user's units, [batch, ...], on the device of the network.

        Args:
            batch_size: Number of samples.
            show_progress: Whether to show progress if sampling takes longer than two seconds.
            walk_options: Options of `walk`, and values of the conditions by name.

        Raises:
            ValueError: If an option of `walk` does not fit.
            FloatingPointError: If samples become NaN or infinite; the error names the first such
                step.
        """
        walk = self.walk(batch_size, **walk_options)
        total, snapshots = len(walk.grid), self.trajectory(walk)
        for snapshot in progress(snapshots, total, "sampling", shown=show_progress):
            last = snapshot
        return walk.decode(last.x, last.to)

    def previews(
        self, count: int, *, seeds: Sequence[int], steps: int | None = None, **condition: Any
    ) -> Tensor | None:
        """Returns images of samples, or None for other data; see `Trainable`.

        A sampler that needs all steps of the process takes 50 of them, unless `steps` is given.
        """
        if steps is None and self.sampler.default_calls is None:
            steps = min(50, self.timesteps)
        samples = self.sample(count, seed=seeds, steps=steps, show_progress=False, **condition)
        return self.space.pictures(samples)

    @torch.no_grad()
    def trajectory(self, walk: Walk) -> Iterator[Snapshot]:
        """Samples step by step and yields a `Snapshot` after each step.

        `walk.decode(snapshot.x0)` is the current estimate of the final samples. The network is in
        evaluation mode until the iterator ends or is closed.
        """
        with self.evaluating():
            yield from checked(
                trajectory(walk.sampler, walk.denoise, walk.start, walk.grid, walk.noise)
            )

    def grid(
        self,
        steps: int | str | None = None,
        spacing: Spacing | None = None,
        *,
        first: NoiseLevel | None = None,
        last: NoiseLevel | None = None,
        sampler: Sampler | None = None,
    ) -> Grid:
        """Returns the levels for a number of steps, to the clean end; see `spaced_grid`.

        Args:
            steps: Number of sampler steps; None uses `timesteps`. A respacing string such as
                'ddim50' or '10,15,20' chooses among `timesteps` (see `respaced_times`). With None
                alone, the grid is that of the process, which has one more step if the schedule has
                noise at time 0 (VE, EDM).
            spacing: Spacing of the steps: 'time', 'log_snr' or 'optimal'. None is that of the
                sampler; see `Sampler.grid`.
            first: Level where the first step starts, as sigma / alpha or as text such as
                'log_snr=-9'; None starts at t = 1. See `level_of`.
            last: Level where the last step starts, given like `first`; None uses the default of the
                spacing.
            sampler: Sampler that will take the steps; None for any.

        Raises:
            ValueError: If an option is out of range or unknown, or a respacing string comes with
                spacing, first or last.
        """
        scale = noise_scale(self.sample_shape, feedback=self.parts.estimate is not None)
        how = (steps, spacing, first, last, scale)
        return make_grid(self.schedule, self.timesteps, self.time_difference, sampler, *how)
