"""Measures the quality of generated digits by a small classifier trained on real digits.

    python scripts/benchmarks/evaluate_digits.py RUN

Prints the share recognised with confidence, the share of each class, and Fréchet distances in the
features of the classifier. "Held out" means unseen by the classifier; the diffusion model was
trained on all digits. Takes about a minute.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffusion_framework import Digits, GaussianDiffusion


class Classifier(nn.Module):
    """A classifier of images [batch, 1, 8, 8] in [0, 1] with 64 `features` before the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(1024, 64),
            nn.ReLU(),
        )
        self.logits = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.features(images))


def real_digits(split: str) -> tuple[Tensor, Tensor]:
    """Returns images [n, 1, 8, 8] in [0, 1] and labels [n]."""
    images, labels = zip(*Digits(labels=True, split=split), strict=True)
    return torch.stack(images).float() / 255, torch.tensor(labels)


def train_classifier(images: Tensor, labels: Tensor, epochs: int = 60) -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * (len(images) // 64))
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64)[: len(images) // 64]:
            F.cross_entropy(classifier(images[batch]), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return classifier.eval()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Returns the squared Fréchet distance of Gaussians fitted to features [n, d].

    This is equation 6 of Heusel et al. 2017.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return (
        (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    ).item()


def halves_distance(features: Tensor, first: int, second: int, splits: int = 20) -> float:
    """Returns the mean Fréchet distance between disjoint random parts of these sizes."""
    distances = []
    for seed in range(splits):
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
        distances.append(
            frechet_distance(features[order[:first]], features[order[first : first + second]])
        )
    return sum(distances) / splits


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="results folder of a run on the built-in digits")
    parser.add_argument("--num_samples", type=int, default=500)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        help="guidance scale for a model with classes, trained with label_dropout",
    )
    args = parser.parse_args()
    if not 100 <= args.num_samples <= 1400:
        parser.error(
            "--num_samples: expected 100 to 1400, as 1797 real digits exist, got "
            f"{args.num_samples}. Fix: choose a number in this range."
        )

    diffusion = GaussianDiffusion.from_pretrained(args.run)
    with torch.enable_grad():
        classifier = train_classifier(*real_digits("train"))
    held_out, labels = real_digits("test")
    real, _ = real_digits("all")
    asked = torch.arange(args.num_samples) % 10
    condition = {"labels": asked, "guidance": args.guidance} if diffusion.num_classes else {}
    generated = diffusion.sample(args.num_samples, steps=args.steps, seed=args.seed, **condition)

    def confident(images: Tensor) -> float:
        return (classifier(images).softmax(1).amax(1) > 0.9).float().mean().item()

    accuracy = (classifier(held_out).argmax(1) == labels).float().mean().item()
    shares = torch.bincount(classifier(generated).argmax(1), minlength=10) / len(generated)
    print(f"classifier accuracy on {len(held_out)} held-out real digits: {accuracy:.3f}")
    print(
        f"confidence above 0.9: generated {confident(generated):.3f}, held-out real "
        f"{confident(held_out):.3f}, ",
        end="",
    )
    print(f"ratio {confident(generated) / confident(held_out):.3f}")
    if condition:
        agreement = (classifier(generated).argmax(1) == asked).float().mean().item()
        print(f"share in which the classifier sees the requested digit: {agreement:.3f}")
    print(
        "share of each class:",
        " ".join(f"{digit}:{share:.3f}" for digit, share in enumerate(shares.tolist())),
    )
    features = classifier.features(real)
    to_real = frechet_distance(classifier.features(generated), classifier.features(held_out))
    halves = halves_distance(features, len(real) // 2, len(real) // 2)
    matched = halves_distance(features, len(generated), len(held_out))
    print(f"Fréchet distance: generated to held-out real {to_real:.3f}")
    print(f"  two halves of all real: {halves:.3f}, ratio {to_real / halves:.2f}")
    print(
        f"  as many real ({len(generated)} to {len(held_out)}): {matched:.3f}, ratio "
        f"{to_real / matched:.2f}"
    )
    nearest = torch.cdist(generated.flatten(1), real.flatten(1)).amin(1).median().item()
    real_pairs = torch.cdist(real.flatten(1), real.flatten(1)) + 1e9 * torch.eye(len(real))
    print(f"median distance to the nearest real digit: generated {nearest:.3f}, ", end="")
    print(f"real {real_pairs.amin(1).median().item():.3f} (far smaller would mean copies)")


if __name__ == "__main__":
    main()
