"""Measures what guidance costs, beside sampling twice as many images without guidance.

    python scripts/benchmarks/benchmark_guidance.py

Guided and unguided sampling take turns; the ratio of each pair of runs counts, and the table has
their median. Takes two minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import DDIM, GaussianDiffusion, UNet
from diffusion_framework.denoisers import (
    APG,
    Autoguidance,
    CFGZero,
    ClassifierFree,
    Guidance,
    Interval,
    PerCondition,
    Rescale,
)


def kinds(weaker: GaussianDiffusion) -> list[Guidance]:
    return [
        ClassifierFree(2.0),
        PerCondition({"labels": 2.0}),
        Interval(2.0, low=0.2, high=2.0),
        Rescale(2.0),
        APG(2.0),
        CFGZero(2.0),
        Autoguidance(weaker, 2.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--dim", type=int, default=32, help="width of the UNet")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    def made() -> GaussianDiffusion:
        network = UNet(args.dim, num_classes=10, image_size=args.image_size)
        return GaussianDiffusion(network, condition_dropout=0.1).to(args.device).eval()

    model, weaker = made(), made()

    def seconds(count: int, guidance: Guidance | None) -> float:
        labels = torch.arange(count) % 10
        options = {"sampler": DDIM(), "steps": args.steps, "guidance": guidance, "seed": 0}
        begun = time.perf_counter()
        model.sample(count, labels=labels, show_progress=False, **options).cpu()  # waits for it
        return time.perf_counter() - begun

    print("| guidance | times an unguided doubled batch |\n|---|---|")
    for guidance in kinds(weaker):
        seconds(args.batch_size, guidance)  # fills caches
        seconds(2 * args.batch_size, None)
        ratios = [
            seconds(args.batch_size, guidance) / seconds(2 * args.batch_size, None)
            for _ in range(args.repetitions)
        ]
        print(f"| {type(guidance).__name__} | {statistics.median(ratios):.2f} |", flush=True)


if __name__ == "__main__":
    main()
