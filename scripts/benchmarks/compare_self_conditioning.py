"""Measures the benefit of self-conditioning for a RIN on handwritten digits.

    python scripts/benchmarks/compare_self_conditioning.py

For each seed it trains four networks from the same initial weights, on the same images and noise.
They are given nothing, their last image, their last latents, or both. It prints the error of the
averaged weights on held-out digits for three kinds of call:

- a first call;
- a second call at the same noise level, as in training;
- the last of five calls at falling noise levels, as in sampling with 50 steps.

The numbers are written to OUTPUT/losses.json, and the runs with their samples to folders beside it.
Takes seven minutes per seed on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import RIN, GaussianDiffusion, Trainer
from diffusion_framework.data import Digits
from diffusion_framework.process.noise import keyed_generator
from diffusion_framework.training import LearningRate, Loading, Logging


class Nothing(RIN):
    """A RIN without self-conditioning."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x, time)


class Image(RIN):
    """A RIN conditioned on its last image."""

    def forward(self, x: Tensor, time: Tensor, self_cond: Tensor | None = None) -> Tensor:
        return super().forward(x, time, self_cond)


class Latents(RIN):
    """A RIN conditioned on its last latents."""

    def forward(
        self, x: Tensor, time: Tensor, latents: Tensor | None = None, return_latents: bool = False
    ):
        return super().forward(x, time, latents=latents, return_latents=return_latents)


FED_BACK = {"nothing": Nothing, "image": Image, "latents": Latents, "both": RIN}
CALLS = {  # differences of the calls' times to t
    "first call": (0.0,),
    "second call": (0.0, 0.0),
    "carried": (0.08, 0.06, 0.04, 0.02, 0.0),
}


@torch.no_grad()
def held_out_losses(diffusion: GaussianDiffusion, repeats: int = 5) -> dict[str, float]:
    """Returns the mean squared error of v on the test digits, for each kind of `CALLS`.

    Times and noise are the same for all kinds.
    """
    images = torch.stack([*Digits(split="test")]).float().repeat(repeats, 1, 1, 1) / 255
    generator = keyed_generator("cpu", 0)
    x0, eps = diffusion.encode(images, {}), torch.randn(images.shape, generator=generator)
    t = torch.rand(len(x0), generator=generator, dtype=torch.float64)
    losses = {}
    for kind, earlier in CALLS.items():
        denoise = diffusion.denoiser()
        for before in earlier:
            at = diffusion.schedule.at((t + before).clamp(max=1))
            level = at.expand_to(x0)
            x = level.alpha * x0 + level.sigma * eps
            prediction = denoise(x, at)
        v = level.alpha * prediction.eps - level.sigma * prediction.x0
        losses[kind] = F.mse_loss(v, level.alpha * eps - level.sigma * x0).item()
    return losses


def train(fed_back: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Trains one network; returns its held-out losses and its training time in seconds."""
    torch.manual_seed(seed)
    network = FED_BACK[fed_back](
        dim=64,
        latent_dim=64,
        num_latents=8,
        blocks=1,
        depth=1,
        heads=4,
        patch_size=2,
        channels=1,
        image_size=8,
    )
    trainer = Trainer(
        GaussianDiffusion(network, min_snr_loss_weight=False, train_prob_self_cond=0.9),
        Digits(split="train"),
        train_batch_size=args.batch_size,
        train_lr=args.lr,
        train_num_steps=args.steps,
        save_and_sample_every=args.steps,
        learning_rate=LearningRate("cosine", warmup_steps=100),
        ema_update_every=1,
        ema_decay=0.99,
        augment_horizontal_flip=False,
        loading=Loading(num_workers=0),
        logging=Logging(every=args.steps, progress=False),
        seed=seed,
        results_folder=Path(args.output) / f"{fed_back}-{seed}",
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    # The class of the network is defined in this script, so that it is passed in.
    trained = GaussianDiffusion.from_pretrained(trainer.results_folder, model=network)
    return {"seconds": seconds, **held_out_losses(trained)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="number of optimizer steps")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seeds", type=int, default=1, help="number of networks of each kind")
    parser.add_argument("--kinds", nargs="+", choices=FED_BACK, default=list(FED_BACK))
    parser.add_argument(
        "--output", default="results/self_conditioning", help="new folder to write to"
    )
    args = parser.parse_args()
    output = Path(args.output)
    if output.exists():
        parser.error(f"--output: expected a new folder, got {output}. Fix: choose another.")

    rows = []
    for seed in range(args.seeds):
        for fed_back in args.kinds:
            rows.append({"fed back": fed_back, "seed": seed, **train(fed_back, seed, args)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            (output / "losses.json").write_text(
                json.dumps({"options": vars(args), "rows": rows}, indent=2) + "\n"
            )

    print("| fed back | " + " | ".join(CALLS) + " | seconds |\n|---|" + "---|" * (len(CALLS) + 1))
    for fed_back in args.kinds:
        mine = [row for row in rows if row["fed back"] == fed_back]
        cells = [f"{_mean(mine, kind):.4f} ± {_spread(mine, kind):.4f}" for kind in CALLS]
        print(f"| {fed_back} | " + " | ".join(cells) + f" | {_mean(mine, 'seconds'):.0f} |")


def _mean(rows: list[dict], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


def _spread(rows: list[dict], key: str) -> float:
    """Returns the standard deviation over the seeds."""
    return statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0


if __name__ == "__main__":
    main()
