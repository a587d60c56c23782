"""Times from noisy to clean, the last 0: evenly spaced, or at the discrete steps of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Literal

from ...process.level import check_step_count


def uniform_times(steps: int, strength: float = 1.0) -> list[float]:
    """Returns `steps + 1` evenly spaced times from `strength` down to 0.

    Args:
        steps: Number of sampler steps, from 1 to 100,000.
        strength: First time, in (0, 1]. Below 1 an image is only partly noised (SDEdit, Meng et
            al. 2022).

    Raises:
        ValueError: If an option is out of range.
    """
    check_steps(steps)
    if not 0 < strength <= 1:
        raise ValueError(f"Expected strength in (0, 1], got {strength}. Fix: use the default 1.")
    return [strength * (steps - i) / steps for i in range(steps + 1)]


def times_of_steps(trained_steps: Iterable[int], trained: int = 1000) -> list[float]:
    """Returns the times of training steps and 0; step i of N lies at time (i + 1) / N.

    Args:
        trained_steps: Falling step numbers from 0 to trained - 1, such as a published list of
            timesteps.
        trained: Number of training steps, N.

    Raises:
        ValueError: If a number is out of range, numbers do not fall, or none is given.
    """
    numbers = list(trained_steps)
    if not numbers:
        raise ValueError("Expected at least one training step, got none. Fix: give more.")
    for number in numbers:
        if not 0 <= number < trained or number != int(number):
            raise ValueError(
                f"Expected whole numbers from 0 to {trained - 1} as training steps, got {number}. "
                "Fix: round it, or set the number of trained steps."
            )
    if any(now <= to for now, to in itertools.pairwise(numbers)):
        raise ValueError(
            f"Expected falling training steps, from noisy to clean, got {numbers}. "
            "Fix: reverse the list of steps, or sort it."
        )
    return [*((number + 1) / trained for number in numbers), 0.0]


def spaced_times(
    steps: int,
    spacing: Literal["leading", "trailing", "linspace"],
    trained: int = 1000,
    offset: int = 0,
) -> list[float]:
    """Returns the times of `steps` evenly spaced training steps and 0 (Lin et al. 2023, table 2).

    The list always has exactly `steps` training steps.

    Args:
        steps: Number of sampler steps, from 1 to trained.
        spacing: `leading` takes the clean end of each stride, and so leaves out the noisiest steps.
            `trailing` takes the noisy end, the right choice for a schedule that ends without
            signal. `linspace` includes both the first and the last step.
        trained: Number of training steps.
        offset: Number added to each training step, with `leading` only (1 for Stable Diffusion).

    Raises:
        ValueError: If `steps` exceeds `trained`, `spacing` is unknown, or `offset` does not fit.
    """
    check_steps(steps)
    if steps > trained:
        raise ValueError(
            f"Expected at most as many sampler steps as the {trained} training steps, got {steps}. "
            "Fix: take fewer sampler steps."
        )
    if offset and spacing != "leading":
        raise ValueError(
            f"Expected an offset with leading spacing only, got {offset=} with {spacing!r}. "
            "Fix: use offset=0, or leading spacing."
        )
    if spacing == "leading":
        numbers = [i * (trained // steps) + offset for i in reversed(range(steps))]
    elif spacing == "trailing":
        numbers = [round(trained * i / steps) - 1 for i in range(steps, 0, -1)]
    elif spacing == "linspace":
        numbers = (
            [trained - 1]
            if steps == 1
            else [round((trained - 1) * i / (steps - 1)) for i in range(steps)][::-1]
        )
    else:
        raise ValueError(
            f"Expected spacing to be 'leading', 'trailing' or 'linspace', got {spacing!r}. "
            "Fix: choose one of these names."
        )
    return times_of_steps(numbers, trained)


def distilled_times(
    steps: int, original: int = 50, trained: int = 1000, strength: float = 1.0
) -> list[float]:
    """Returns the times of a latent consistency model and 0 (LCM, Luo et al. 2023).

    The distillation used every (trained // original)-th training step. Of these, `steps` are taken
    evenly, starting with the noisiest.

    Args:
        steps: Number of sampler steps; 1 to 8 are usual.
        original: Number of steps in the distillation (`original_inference_steps`).
        trained: Number of training steps, at least original.
        strength: Share of the distillation's steps to start from, in (0, 1]. Below 1 an image is
            partly changed.

    Raises:
        ValueError: If an option is out of range, or `steps` exceeds the distillation's steps.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"Expected strength in (0, 1], got {strength}. Fix: use the default 1.")
    distilled = math.floor(original * strength + 1e-9)  # 0.58 * 50 is slightly below 29 in floats.
    if not 1 <= steps <= distilled <= trained:
        raise ValueError(
            f"Expected 1 to {distilled} sampler steps, the distillation's steps times strength, "
            f"and at most {trained} steps of training, got {steps}. "
            "Fix: change steps, or original (original_inference_steps)."
        )
    chosen = [distilled - i * distilled // steps for i in range(steps)]
    return times_of_steps([number * (trained // original) - 1 for number in chosen], trained)


def respaced_times(respacing: str, trained: int = 1000) -> list[float]:
    """Returns the times of training steps chosen by a string, and 0.

    The format is `timestep_respacing` of Nichol & Dhariwal 2021.

    Args:
        respacing: `"50"` takes 50 steps, evenly from the first to the last. `"10,15,20"` cuts
            training into three equal sections, the cleanest first, and takes 10, 15 and 20 steps
            from them.
            `"ddim50"` takes 50 steps by a whole stride from the first step (Song et al. 2021).
        trained: Number of training steps.

    Raises:
        ValueError: If the string has another form, asks for more steps than a section has, or no
            whole stride gives the number of steps.
    """
    text = respacing.removeprefix("ddim").replace(" ", "")
    counts = [int(part) if part.isdecimal() else -1 for part in text.split(",")]
    if min(counts) < 0 or sum(counts) == 0 or (len(counts) > 1 and respacing.startswith("ddim")):
        raise ValueError(
            f"Expected respacing like '50', '10,15,20' or 'ddim50', got {respacing!r}. "
            "Fix: write it like one of these examples."
        )
    if respacing.startswith("ddim"):
        for stride in range(1, trained + 1):
            if len(range(0, trained, stride)) == counts[0]:
                return times_of_steps(range(0, trained, stride)[::-1], trained)
        raise ValueError(
            f"Expected a number of steps made by a whole stride through {trained} training steps, "
            f"got {respacing!r}. Fix: use '{text}'."
        )
    numbers = []
    start = 0
    for i, count in enumerate(counts):
        size = trained // len(counts) + (i < trained % len(counts))
        if count > size:
            raise ValueError(
                f"Expected at most {size} steps in a section of {size} training steps, "
                f"got {count} in {respacing!r}. Fix: take fewer."
            )
        gap = (size - 1) / max(count - 1, 1)
        # Strides are added up, not multiplied: the published function rounds these very sums.
        places = itertools.accumulate([0.0, *[gap] * (count - 1)]) if count else ()
        numbers += [start + round(place) for place in places]
        start += size
    return times_of_steps(numbers[::-1], trained)


def check_steps(steps: int) -> None:
    check_step_count(steps)
