"""Your own dataset and your own training loop: discs of random size, in plain PyTorch.

A `GaussianDiffusion` is a module whose output is its training loss. The dataset, the data loader
and the optimizer below are PyTorch's. Run it with
`python scripts/examples/own_loop.py`; it takes about a minute on two CPU cores.
"""

import itertools
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.utils import save_image

from diffusion_framework import GaussianDiffusion, UNet


class Discs(Dataset[torch.Tensor]):
    """Grey images [1, 16, 16] in [0, 1] of one bright disc each."""

    def __len__(self) -> int:
        return 2000

    def __getitem__(self, index: int) -> torch.Tensor:
        radius, x, y = torch.rand(3, generator=torch.Generator().manual_seed(index))
        rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
        distance = torch.hypot(rows - 5 - 6 * y, columns - 5 - 6 * x)
        return (2 + 2 * radius - distance).clamp(0, 1)[None]  # a soft edge of one pixel


def main(steps: int = 500, folder: str | Path = "results/own_loop") -> torch.Tensor:
    """Trains, writes `samples.png` and the model to a new folder, and returns the samples."""
    network = UNet(dim=16, dim_mults=(1, 2), channels=1, image_size=16, blocks=1)
    diffusion = GaussianDiffusion(network)  # sigmoid schedule, prediction of v
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-3)

    loader = DataLoader(Discs(), batch_size=32, shuffle=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for step, images in enumerate(itertools.islice(batches, steps), start=1):
        loss = diffusion(images)  # draws times and noise, and compares with the prediction
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step}: loss {loss:.3f}")

    diffusion.save_pretrained(folder)  # opened again by GaussianDiffusion.from_pretrained(folder)
    images = diffusion.sample(16, steps=min(steps, 50), seed=0)
    save_image(images, Path(folder) / "samples.png", nrow=4)
    return images


if __name__ == "__main__":
    main()
