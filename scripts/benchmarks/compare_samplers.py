"""Draws samples of one trained model by all samplers in one picture.

    python scripts/benchmarks/compare_samplers.py results/digits --output samplers.png

Rows are samplers and columns are numbers of network calls. Every cell starts from the same noise.
Takes about a minute on the digits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import DDIM, DDPM, LMS, DPMSolver, GaussianDiffusion, Heun, ScoreSDE, UniPC
from diffusion_framework.samplers import (
    DPM2,
    KarrasVE,
    Langevin,
    ReverseDiffusion,
    Sampler,
    SinglestepDPM,
)
from diffusion_framework.samplers.grids import grid_of_log_snrs, uniform_log_snrs
from diffusion_framework.storage.images import arrange

SAMPLERS: list[tuple[str, Sampler, int]] = [  # label, sampler, network calls per step
    ("DDIM", DDIM(), 1),
    ("DDIM, eta 1 = DDPM small", DDIM(eta=1.0), 1),
    ("DDPM large", DDPM(variance="large"), 1),
    ("LMS 4", LMS(order=4), 1),
    ("DPM-Solver++ 2", DPMSolver(order=2), 1),
    ("DPM-Solver++ 3", DPMSolver(order=3), 1),
    ("SDE-DPM-Solver++ 2", DPMSolver(order=2, eta=1.0), 1),
    ("DPM-Solver++ 3, singlestep", SinglestepDPM(order=3), 3),
    ("UniPC 2", UniPC(order=2), 1),
    ("UniPC 3 of v", UniPC(order=3, predict="v"), 1),
    ("Heun", Heun(), 2),
    ("DPM2", DPM2(), 2),
    ("KarrasVE", KarrasVE(), 2),
    ("reverse diffusion", ReverseDiffusion(), 1),
    ("ScoreSDE", ScoreSDE(), 2),
    ("Langevin + DDPM", Langevin(), 2),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="results folder of a run")
    parser.add_argument("--calls", type=int, nargs="+", default=[6, 12, 24, 48, 96])
    parser.add_argument("--num_samples", type=int, default=8, help="number of images in each cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("samplers.png"))
    args = parser.parse_args()
    try:
        diffusion = GaussianDiffusion.from_pretrained(args.run)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")

    figure, axes = plt.subplots(
        len(SAMPLERS), len(args.calls), figsize=(2.6 * len(args.calls), 0.42 * len(SAMPLERS))
    )
    for row, (label, sampler, calls_a_step) in zip(axes, SAMPLERS, strict=True):
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        for axis, calls in zip(row, args.calls, strict=True):
            log_snrs = uniform_log_snrs(diffusion.schedule, max(1, calls // calls_a_step))
            grid = grid_of_log_snrs(diffusion.schedule, log_snrs)
            images = diffusion.sample(
                args.num_samples, sampler=sampler, grid=grid, seed=args.seed, show_progress=False
            )
            axis.imshow(
                arrange(images, args.num_samples).permute(1, 2, 0).squeeze(2),
                cmap="gray",
                vmin=0,
                vmax=1,
            )
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, calls in zip(axes[0], args.calls, strict=True):
        axis.set_title(f"{calls} network calls", fontsize=9)
    figure.tight_layout(pad=0.3)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=110)
    print(f"done: {args.output}")


if __name__ == "__main__":
    main()
