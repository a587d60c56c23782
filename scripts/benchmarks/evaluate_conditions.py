"""Asks a run for its classes and texts, and a classifier of real images whether they are there.

The classifier is trained on the images that the run was trained on. The figures are the share of
images whose class it recognises: of held-out real images, and of samples of the run, asked for a
class or for the text of a held-out image.

    python scripts/benchmarks/evaluate_conditions.py results/emoji FOLDER --output emoji

Writes conditions.json and a grid of samples for each way of asking.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_framework import GaussianDiffusion, ImageFolder
from diffusion_framework.data.held_out import hold_out
from diffusion_framework.storage.images import save_grid

SAMPLES, SCALES, EPOCHS = 180, (1.0, 2.0, 3.0), 30


def main() -> None:
    arguments = parsed()
    folder = Path(arguments.output)
    run = GaussianDiffusion.from_pretrained(arguments.run)
    size = run.sample_shape[-1]
    data = ImageFolder(arguments.folder, size, labels=arguments.labels, captions=arguments.captions)
    train, held_out = (values(part) for part in hold_out(data, 0.1, seed=0))
    classifier = trained_classifier(train[0], train[1], len(data.class_names))
    found = {"run": arguments.run, "held_out_images": len(held_out[0]), "seed": 0}
    found["real"] = agreement(classifier, held_out[0], held_out[1])
    classes = torch.arange(SAMPLES) % len(data.class_names)
    texts = [held_out[2][i % len(held_out[2])] for i in range(SAMPLES)]
    of_texts = held_out[1][torch.arange(SAMPLES) % len(held_out[1])]
    for scale in SCALES:
        options = {"seed": 0, "guidance": scale, "show_progress": True}
        by_class = run.sample(SAMPLES, labels=classes, **options)
        found[f"by class, guidance {scale:g}"] = agreement(classifier, by_class, classes)
        save_grid(by_class[:90], folder / f"classes_{scale:g}.png", len(data.class_names))
        if "text" in run.conditions:
            by_text = run.sample(SAMPLES, text=texts, **options)
            found[f"by text, guidance {scale:g}"] = agreement(classifier, by_text, of_texts)
            save_grid(by_text[:90], folder / f"texts_{scale:g}.png", 9)
        report(found, folder)


def report(found: dict[str, object], folder: Path) -> None:
    """Writes the figures, so that a stopped run leaves those it has."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"date": date.today().isoformat(), "torch": torch.__version__, **found}
    (folder / "conditions.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def values(dataset: object) -> tuple[Tensor, Tensor, list[str]]:
    """Returns the images [n, channels, height, width] in [0, 1], labels [n] and texts."""
    items = [dataset[i] for i in range(len(dataset))]
    told = [item[1] if isinstance(item[1], dict) else {"labels": item[1]} for item in items]
    images = torch.stack([item[0] for item in items]).float() / 255
    return images, torch.tensor([t["labels"] for t in told]), [t.get("text", "") for t in told]


def trained_classifier(images: Tensor, labels: Tensor, classes: int) -> nn.Module:
    """Trains a small convolutional network on shifted and mirrored images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    widths: Sequence[int] = (images.shape[1], 32, 64, 128)
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, classes)
    )
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    steps = EPOCHS * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for indices in torch.randperm(len(images)).split(64)[: len(images) // 64]:
            batch = images[indices]
            batch = batch.roll((*torch.randint(-3, 4, (2,)).tolist(),), dims=(2, 3))
            batch = batch.flip(-1) if torch.rand(()) < 0.5 else batch
            loss = nn.functional.cross_entropy(network(batch), labels[indices], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def agreement(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Returns the share of images whose class the classifier recognises."""
    told = torch.cat([classifier(batch.clamp(0, 1)) for batch in images.split(64)]).argmax(1)
    return round((told == labels).float().mean().item(), 3)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="results folder of a run with classes")
    parser.add_argument("folder", help="folder of its images")
    parser.add_argument("--labels", default="category", help="column of the classes")
    parser.add_argument("--captions", default="subcategory,text", help="columns of the texts")
    parser.add_argument("--output", default="conditions", help="folder for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
