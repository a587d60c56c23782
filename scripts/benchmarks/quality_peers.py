"""Training and sampling of other libraries, which quality.py runs in processes of their own.

    python quality_peers.py train NAME JSON      trains for a number of steps
    python quality_peers.py sample NAME JSON     writes samples by number of network calls

Each library trains with the settings of its own example; only the learning rate may be another. The
networks have about 1.1 million parameters.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Task:
    """What a peer trains on and for how long.

    Args:
        folder: Folder of the images.
        image_size: Height and width in pixels.
        channels: Number of channels.
        steps: Number of optimizer steps.
        rate: Learning rate; None for that of the library.
        seed: Seed of weights, data and noise.
        flip: Whether images may be flipped.
        results: Folder for the files of a run.
        samples: Number of samples.
        calls: Numbers of network calls for a sample.
    """

    folder: str
    image_size: int
    channels: int
    steps: int
    rate: float | None
    seed: int
    flip: bool
    results: str
    samples: int
    calls: tuple[int, ...]

    @property
    def mode(self) -> str:
        return {1: "L", 3: "RGB"}[self.channels]


def save(images: Tensor, task: Task, calls: int) -> None:
    """Writes images [n, channels, h, w] in [0, 1] as evaluators read them."""
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    np.savez(Path(task.results) / f"{calls}.npz", arr_0=pixels)


class Lucidrains:
    """The Trainer of denoising-diffusion-pytorch, with batches of 32 (its own 16 twice)."""

    def trainer(self, task: Task, calls: int | None = None) -> Any:
        from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

        network = Unet(20, dim_mults=(1, 2, 4), channels=task.channels)
        diffusion = GaussianDiffusion(
            network, image_size=task.image_size, sampling_timesteps=calls, auto_normalize=True
        )
        options = {} if task.rate is None else {"train_lr": task.rate}
        return Trainer(
            diffusion,
            task.folder,
            train_batch_size=32,
            gradient_accumulate_every=1,
            train_num_steps=task.steps,
            save_and_sample_every=10**9,
            results_folder=task.results,
            augment_horizontal_flip=task.flip,
            convert_image_to=task.mode,
            calculate_fid=False,
            amp=False,
            **options,
        )

    def train(self, task: Task) -> None:
        trainer = self.trainer(task)
        trainer.train()
        trainer.save(1)

    def sample(self, task: Task) -> None:
        for calls in task.calls:
            trainer = self.trainer(task, calls)
            trainer.load(1)
            torch.manual_seed(task.seed)
            with torch.inference_mode():
                model = trainer.ema.ema_model.eval()
                images = [model.sample(batch_size=100) for _ in range(task.samples // 100)]
            save(torch.cat(images), task, calls)


class Diffusers:
    """The example of unconditional training, with its EMA, by batches of 32."""

    def network(self, task: Task) -> nn.Module:
        from diffusers import UNet2DModel

        return UNet2DModel(
            task.image_size,
            task.channels,
            task.channels,
            layers_per_block=1,
            block_out_channels=(32, 64, 64),
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )

    def train(self, task: Task) -> None:
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_cosine_schedule_with_warmup
        from diffusers.training_utils import EMAModel

        model = self.network(task).train()
        scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=task.rate or 1e-4, betas=(0.95, 0.999), weight_decay=1e-6
        )
        rate = get_cosine_schedule_with_warmup(optimizer, 500, task.steps)
        average = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, power=0.75)
        batches = self.batches(task)
        for _ in range(task.steps):
            images = next(batches)
            noise, times = torch.randn_like(images), torch.randint(0, 1000, (len(images),))
            estimate = model(scheduler.add_noise(images, noise, times), times).sample
            nn.functional.mse_loss(estimate, noise).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            average.step(model.parameters())
        average.copy_to(model.parameters())
        torch.save(model.state_dict(), Path(task.results) / "model.pt")

    def batches(self, task: Task) -> Any:
        from PIL import Image
        from torchvision import transforms

        steps: list[Any] = [transforms.Resize(task.image_size)]
        steps += [transforms.CenterCrop(task.image_size)]
        steps += [transforms.RandomHorizontalFlip()] if task.flip else []
        transform = transforms.Compose([*steps, transforms.ToTensor()])
        paths = sorted(p for p in Path(task.folder).rglob("*") if p.is_file())
        while True:
            order = torch.randperm(len(paths)).tolist()
            for start in range(0, len(paths) - 31, 32):
                some = (Image.open(paths[i]).convert(task.mode) for i in order[start : start + 32])
                yield torch.stack([transform(image) for image in some]) * 2 - 1

    def sample(self, task: Task) -> None:
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

        model = self.network(task).eval()
        model.load_state_dict(torch.load(Path(task.results) / "model.pt", weights_only=True))
        for calls in task.calls:
            few = calls < 20
            kind = DPMSolverMultistepScheduler if few else DDIMScheduler
            scheduler = kind(num_train_timesteps=1000, beta_schedule="linear")
            found = []
            for batch in range(task.samples // 100):
                generator = torch.Generator().manual_seed(1000 * task.seed + batch)
                shape = 100, task.channels, task.image_size, task.image_size
                x = torch.randn(shape, generator=generator)
                scheduler.set_timesteps(calls)
                with torch.inference_mode():
                    for t in scheduler.timesteps:
                        x = scheduler.step(model(x, t).sample, t, x).prev_sample
                found.append(x / 2 + 0.5)
            save(torch.cat(found), task, calls)


PEERS = {"denoising-diffusion-pytorch": Lucidrains(), "diffusers": Diffusers()}

if __name__ == "__main__":
    what, name, spec = sys.argv[1:]
    task = Task(**json.loads(spec))
    torch.manual_seed(task.seed)
    Path(task.results).mkdir(parents=True, exist_ok=True)
    peer = PEERS[name]
    if what == "train":
        peer.train(task)
    else:
        peer.sample(task)
