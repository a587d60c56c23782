"""Compares kinds of guidance on a two-dimensional mixture whose denoisers are known exactly.

    python scripts/benchmarks/guidance_mixture.py --output guidance.png

Each of two classes is a tree of many small Gaussians. The model to be guided knows the trees a
little blurred, as a trained network does, and the weaker model knows them more blurred. Both are
networks of a `GaussianDiffusion`, so guidance and samplers are those of the package. The table
compares samples of one class with the truth. Takes a minute.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import EDM, GaussianDiffusion, Heun, Labels, Unbounded
from diffusion_framework.denoisers import (
    APG,
    Autoguidance,
    CFGZero,
    ClassifierFree,
    Guidance,
    Interval,
    Rescale,
)

STD = 0.012  # of each Gaussian
BLUR, WEAKER_BLUR = 0.05, 0.1
DRAWN = (
    "none",
    "classifier-free, 2",
    "classifier-free, 4",
    "interval, 4",
    "APG, 4",
    "autoguidance, 4",
)
FARTHEST = 0.999  # share of the truth that is nearer to a tree than an outlier


def tree(root: complex, angle: float, length: float, depth: int) -> list[complex]:
    """Returns points along a branch and the branches that grow from its end."""
    end = root + length * complex(math.cos(angle), math.sin(angle))
    points = [root + (end - root) * (i + 0.5) / 12 for i in range(12)]
    if depth:
        for turn in (-0.55, 0.45):
            points += tree(end, angle + turn, 0.72 * length, depth - 1)
    return points


class Trees(nn.Module):
    """Predicts the clean data exactly, for a blurred mixture of two trees.

    Args:
        blur: Standard deviation of the blur.
    """

    sample_shape = (2,)

    def __init__(self, blur: float) -> None:
        super().__init__()
        classes = [tree(0j, 0.5 * math.pi - side * 0.75, 0.55, 4) for side in (1, -1)]
        points = torch.tensor([*classes[0], *classes[1]], dtype=torch.complex128)
        centres = torch.view_as_real(points)
        self.centres = nn.Parameter(centres, requires_grad=False)
        owners = torch.tensor([0] * len(classes[0]) + [1] * len(classes[1]))
        self.register_buffer("owners", owners)
        self.variance = STD**2 + blur**2

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        sigma2 = time.double()[:, None] ** 2  # x has alpha = 1
        total = self.variance + sigma2
        scores = -0.5 * torch.cdist(x, self.centres).square() / total
        other = (labels[:, None] < 2) & (self.owners != labels[:, None])  # the label 2 is none
        weights = scores.masked_fill(other, -torch.inf).softmax(1)
        return (self.variance * x + sigma2 * (weights @ self.centres)) / total

    def draw(self, count: int, label: int, generator: torch.Generator) -> Tensor:
        """Returns samples of the sharp mixture."""
        own = self.centres[self.owners == label]
        chosen = own[torch.randint(len(own), (count,), generator=generator)]
        return chosen + STD * torch.randn(count, 2, generator=generator, dtype=torch.float64)


def diffusion(blur: float) -> GaussianDiffusion:
    made = GaussianDiffusion(
        Trees(blur),
        objective="x0",
        noise_schedule=EDM(sigma_min=0.002, sigma_max=20.0),
        space=Unbounded(mean=0.0, std=1.0),
        time_input="sigma",
        input_scaling="unscaled",
        conditions={"labels": Labels(2, dropout=0.1)},
    )
    return made.eval()


def energy_distance(one: Tensor, other: Tensor) -> float:
    """Returns the energy distance (Székely & Rizzo 2013), 0 for equal distributions."""

    def within(points: Tensor) -> Tensor:
        return torch.cdist(points, points).sum() / (len(points) * (len(points) - 1))

    return float(2 * torch.cdist(one, other).mean() - within(one) - within(other))


def measure(samples: Tensor, truth: Tensor, fresh: Tensor) -> tuple[float, float, float]:
    """Returns the energy distance, the share of outliers, and the share of truth that is missed.

    Args:
        samples: Samples to measure, [count, 2].
        truth: Samples of the truth.
        fresh: Other samples of the truth, which set the distance that counts as far.
    """
    far = torch.cdist(fresh, truth).min(1).values.quantile(FARTHEST)
    outliers = (torch.cdist(samples, truth).min(1).values > far).double().mean()
    missed = (torch.cdist(truth, samples).min(1).values > far).double().mean()
    return energy_distance(samples, truth), float(outliers), float(missed)


def kinds(weaker: GaussianDiffusion) -> dict[str, Guidance | None]:
    """Returns the guidance of each row by its label."""
    return {
        "none": None,
        "classifier-free, 2": ClassifierFree(2.0),
        "classifier-free, 4": ClassifierFree(4.0),
        "interval, 2": Interval(2.0, low=0.05, high=0.4),
        "interval, 4": Interval(4.0, low=0.05, high=0.4),
        "APG, 4": APG(4.0),
        "rescaled, 4": Rescale(4.0),
        "CFG-Zero*, 4": CFGZero(4.0),
        "autoguidance, 2": Autoguidance(weaker, 2.0),
        "autoguidance, 4": Autoguidance(weaker, 4.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_samples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("guidance.png"))
    args = parser.parse_args()
    model, weaker, generator = diffusion(BLUR), diffusion(WEAKER_BLUR), torch.Generator()
    generator.manual_seed(args.seed)
    truth, fresh = (model.model.draw(args.num_samples, 0, generator) for _ in range(2))
    found = {"truth": fresh}
    options = {"sampler": Heun(), "steps": args.steps, "seed": args.seed, "show_progress": False}
    for name, guidance in kinds(weaker).items():
        found[name] = model.sample(args.num_samples, labels=0, guidance=guidance, **options)
    print("| guidance, scale | energy distance | outliers | missed |\n|---|---|---|---|")
    for name, samples in found.items():
        distance, outliers, missed = measure(samples, truth, fresh)
        print(f"| {name} | {distance:.4f} | {100 * outliers:.1f} % | {100 * missed:.1f} % |")
    draw(found, truth, args.output)
    print(f"done: {args.output}")


def draw(found: dict[str, Tensor], truth: Tensor, path: Path) -> None:
    """Draws samples over the truth, a panel for each kind of guidance."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.9))
    for axis, name in zip(axes.flat, DRAWN, strict=True):
        axis.scatter(*truth.T, s=4, c="#c8c8c8", linewidths=0)
        axis.scatter(*found[name][:1200].T, s=4, c="#c23b22", linewidths=0)
        axis.set(title=name, xlim=(-0.1, 1.6), ylim=(-0.05, 1.6), xticks=[], yticks=[])
        axis.set_aspect("equal")
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=65)


if __name__ == "__main__":
    main()
