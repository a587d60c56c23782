"""Times, from noisy to clean, the last 0: evenly spaced, or those of the discrete steps of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Literal

from ...process.level import check_step_count


def uniform_times(steps: int, strength: float = 1.0) -> list[float]:
    """`steps + 1` evenly spaced times from `strength` down to 0.

    Args:
        steps: Number of steps, at least 1.
        strength: Time to start from, in (0, 1]; below 1 an image is only partly noised (SDEdit, Meng et al. 2022).
    """
    check_steps(steps)
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1]; got {strength}")
    return [strength * (steps - i) / steps for i in range(steps + 1)]


def times_of_steps(trained_steps: Iterable[int], trained: int = 1000) -> list[float]:
    """The times of some steps of training, step i of N lying at (i + 1) / N, and 0.

    Args:
        trained_steps: Numbers from 0 to trained - 1, falling; such as a published list of timesteps.
        trained: Number of steps of training, N.

    Raises:
        ValueError: a number out of range, numbers that do not fall, or none.
    """
    numbers = list(trained_steps)
    if not numbers:
        raise ValueError("a grid needs at least one step; got none")
    for number in numbers:
        if not 0 <= number < trained or number != int(number):
            raise ValueError(f"steps must be whole numbers from 0 to {trained - 1}; got {number}")
    if any(now <= to for now, to in itertools.pairwise(numbers)):
        raise ValueError(f"steps must fall, from noisy to clean; got {numbers}: reverse or sort them")
    return [*((number + 1) / trained for number in numbers), 0.0]


def spaced_times(
    steps: int, spacing: Literal["leading", "trailing", "linspace"], trained: int = 1000, offset: int = 0
) -> list[float]:
    """Evenly spaced steps of training as times, and 0 (Lin et al. 2023, table 2). Always exactly `steps` of them.

    Args:
        steps: Number of steps, from 1 to trained.
        spacing: `leading` takes the clean end of each stride and so leaves out the noisiest steps; `trailing` takes the
            noisy end, the right choice where that has no signal; `linspace` has both the first and the last step.
        trained: Number of steps of training.
        offset: Added to each step, with `leading` only (1 for Stable Diffusion).

    Raises:
        ValueError: more steps than trained, an unknown spacing, or an offset that does not go with it.
    """
    check_steps(steps)
    if steps > trained:
        raise ValueError(f"the model was trained with {trained} steps; got {steps}: take at most as many")
    if offset and spacing != "leading":
        raise ValueError(f"an offset goes with leading spacing only; got offset={offset} with {spacing!r}")
    if spacing == "leading":
        numbers = [i * (trained // steps) + offset for i in reversed(range(steps))]
    elif spacing == "trailing":
        numbers = [round(trained * i / steps) - 1 for i in range(steps, 0, -1)]
    elif spacing == "linspace":
        numbers = [trained - 1] if steps == 1 else [round((trained - 1) * i / (steps - 1)) for i in range(steps)][::-1]
    else:
        raise ValueError(f"spacing must be 'leading', 'trailing' or 'linspace'; got {spacing!r}")
    return times_of_steps(numbers, trained)


def distilled_times(steps: int, original: int = 50, trained: int = 1000, strength: float = 1.0) -> list[float]:
    """The times of a consistency model: some of those it was distilled at, and 0 (Luo et al. 2023: LCM).

    The distillation took every (trained // original)-th step of training; `steps` of these are taken, evenly, from the
    noisiest.

    Args:
        steps: Number of steps; 1 to 8 are usual.
        original: Steps of the distillation (`original_inference_steps`).
        trained: Number of steps of training, at least original.
        strength: Share of the distillation's steps to start from, in (0, 1]; below 1 an image is changed in part.

    Raises:
        ValueError: an option out of range, or more steps than there are.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1]; got {strength}")
    known = math.floor(original * strength + 1e-9)  # 0.58 of 50 is 29, though not in floats
    if not 1 <= steps <= known <= trained:
        raise ValueError(
            f"needs 1 to {known} steps, those of the distillation (original_inference_steps, times strength), of "
            f"{trained} in training; got {steps}"
        )
    chosen = [known - i * known // steps for i in range(steps)]
    return times_of_steps([number * (trained // original) - 1 for number in chosen], trained)


def respaced_times(respacing: str, trained: int = 1000) -> list[float]:
    """Steps of training chosen by a text, as times, and 0 (Nichol & Dhariwal 2021: `timestep_respacing`).

    Args:
        respacing: `"50"`: that many steps, from the first to the last. `"10,15,20"`: training is cut in as many equal
            sections, the cleanest first, with so many steps from each. `"ddim50"`: so many steps by a whole stride from
            the first (Song et al. 2021), if there is one.
        trained: Number of steps of training.

    Raises:
        ValueError: a text of no such form, or more steps than there are.
    """
    text = respacing.removeprefix("ddim").replace(" ", "")
    counts = [int(part) if part.isdecimal() else -1 for part in text.split(",")]
    if min(counts) < 0 or sum(counts) == 0 or (len(counts) > 1 and respacing.startswith("ddim")):
        raise ValueError(f"respacing must look like '50', '10,15,20' or 'ddim50'; got {respacing!r}")
    if respacing.startswith("ddim"):
        for stride in range(1, trained + 1):
            if len(range(0, trained, stride)) == counts[0]:
                return times_of_steps(range(0, trained, stride)[::-1], trained)
        raise ValueError(f"no whole stride makes {counts[0]} of {trained} steps; got {respacing!r}: use '{text}'")
    numbers = []
    start = 0
    for i, count in enumerate(counts):
        size = trained // len(counts) + (i < trained % len(counts))
        if count > size:
            raise ValueError(f"a section of {size} of {trained} steps has no {count}; got respacing {respacing!r}")
        numbers += [start + round(j * (size - 1) / max(count - 1, 1)) for j in range(count)]
        start += size
    return times_of_steps(numbers[::-1], trained)


def check_steps(steps: int) -> None:
    check_step_count(steps)
