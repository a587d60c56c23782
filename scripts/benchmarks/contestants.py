"""Training loops and loaders on a folder of images, which benchmark_training.py compares.

`python contestants.py NAME JSON` trains one contestant until it is killed. Every few steps it
appends a line to a file: steps done, the monotonic time in seconds, and peak GPU memory in bytes.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

STEPS_OF_A_RUN = 1_000_000
SUFFIXES = (".jpg", ".jpeg", ".png")  # image formats that all contestants read


@dataclass(frozen=True)
class Task:
    """The task of all contestants.

    Args:
        folder: Folder of the images.
        image_size: Height and width in pixels.
        batch: Number of images of a step.
        width: Number of channels at full resolution in the other libraries' networks. Our networks
            have the same number of parameters, within 5 %.
        report: File for the lines.
        every: Number of steps between two lines.
        results: Folder for the files of a run.
        threads: Number of PyTorch threads.
    """

    folder: str
    image_size: int
    batch: int
    width: int
    report: str
    every: int
    results: str
    threads: int


def reported(network: nn.Module, task: Task) -> nn.Module:
    """Returns the network after adding a hook that reports its calls in training."""
    calls, file = itertools.count(), open(task.report, "a", buffering=1)  # noqa: SIM115

    def report(module: nn.Module, *_: object) -> None:
        if not module.training:
            return
        done = next(calls)  # steps before this one
        if done == 1 or done % task.every == 0:
            peak = 0
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                peak = torch.cuda.max_memory_allocated()
            file.write(f"{done} {time.monotonic()} {peak}\n")

    network.register_forward_pre_hook(report)
    return network


# The networks: two of other libraries, and ours with the same levels and, within 5 %, parameters.


def lucidrains_unet(task: Task) -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    return Unet(task.width)


def like_lucidrains(task: Task) -> nn.Module:
    """Returns our U-Net for comparison with denoising-diffusion-pytorch.

    For the same number of parameters, the third level has 3 instead of 4 times the width, and the
    attention has half the heads.
    """
    from diffusion_framework import UNet

    return UNet(
        task.width,
        (1, 2, 3, 8),
        image_size=task.image_size,
        blocks=1,
        heads=2,
        self_condition=False,
    )


def diffusers_unet(task: Task) -> nn.Module:
    """Returns the network of diffusers' training example, with another width."""
    from diffusers import UNet2DModel

    down = ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D")
    up = ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4
    widths = tuple(task.width * mult for mult in (1, 1, 2, 2, 4, 4))
    return UNet2DModel(
        task.image_size,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=down,
        up_block_types=up,
    )


def like_diffusers(task: Task) -> nn.Module:
    from diffusion_framework import UNet

    mults = (1, 1, 2, 2, 4, 4)
    return UNet(
        task.width, mults, image_size=task.image_size, attention_levels=(-2,), self_condition=False
    )


# The training loops.


def train_ours(task: Task, network: Callable[[Task], nn.Module], precision: str) -> None:
    from diffusion_framework import GaussianDiffusion, Trainer
    from diffusion_framework.training import Loading, Logging

    diffusion = GaussianDiffusion(reported(network(task), task))
    options = {
        "mixed_precision": precision,
        "train_batch_size": task.batch,
        "train_num_steps": STEPS_OF_A_RUN,
    }
    options |= {"save_and_sample_every": STEPS_OF_A_RUN, "loading": Loading(cache="memory")}
    options |= {"logging": Logging(progress=False)}
    Trainer(diffusion, task.folder, results_folder=task.results, **options).train()


def train_lucidrains(task: Task, network: Callable[[Task], nn.Module], precision: str) -> None:
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer

    options = {
        "amp": precision == "bf16",
        "mixed_precision_type": "bf16",
        "train_batch_size": task.batch,
    }
    options |= {
        "train_num_steps": STEPS_OF_A_RUN,
        "save_and_sample_every": STEPS_OF_A_RUN,
        "calculate_fid": False,
    }
    diffusion = GaussianDiffusion(reported(network(task), task), image_size=task.image_size)
    Trainer(diffusion, task.folder, results_folder=task.results, **options).train()


def train_diffusers(task: Task, network: Callable[[Task], nn.Module], precision: str) -> None:
    """Trains as diffusers' unconditional training example does, with its default settings."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup

    accelerator = Accelerator(mixed_precision=precision)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    model = reported(network(task), task)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6
    )
    rate = get_cosine_schedule_with_warmup(optimizer, 500, STEPS_OF_A_RUN)
    model, optimizer, loader, rate = accelerator.prepare(
        model, optimizer, diffusers_loader(task), rate
    )
    model.train()
    while True:
        for images in loader:
            noise = torch.randn_like(images)
            times = torch.randint(
                0, scheduler.config.num_train_timesteps, (len(images),), device=images.device
            )
            with accelerator.accumulate(model):
                estimate = model(scheduler.add_noise(images, noise, times), times).sample
                loss = nn.functional.mse_loss(estimate.float(), noise)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
            loss.item()  # the example logs it


CONTESTANTS = {  # name: (training loop, network, precision)
    "ours, as lucidrains": (train_ours, like_lucidrains, "auto"),
    "ours, as lucidrains, float32": (train_ours, like_lucidrains, "no"),
    "lucidrains": (train_lucidrains, lucidrains_unet, "no"),
    "lucidrains, bf16": (train_lucidrains, lucidrains_unet, "bf16"),
    "ours, as diffusers": (train_ours, like_diffusers, "auto"),
    "ours, as diffusers, float32": (train_ours, like_diffusers, "no"),
    "diffusers": (train_diffusers, diffusers_unet, "no"),
    "diffusers, bf16": (train_diffusers, diffusers_unet, "bf16"),
}


# The loaders alone; each yields the sizes of its batches endlessly.


def our_batches(task: Task) -> Iterator[int]:
    from accelerate import Accelerator

    from diffusion_framework import ImageFolder
    from diffusion_framework.data.loading.loader import ShuffledBatches, loaded_batches
    from diffusion_framework.data.loading.placement import cached

    images = ImageFolder(task.folder, task.image_size)
    accelerator, order = Accelerator(), ShuffledBatches(len(images), task.batch, seed=0)
    with (
        cached(images, "memory", accelerator) as kept,
        loaded_batches(kept, order, num_workers=2, device=accelerator.device) as batches,
    ):
        for (batch,) in batches:
            yield len(batch)


def lucidrains_batches(task: Task) -> Iterator[int]:
    """Yields batch sizes of the loader of its Trainer, with one data worker per core."""
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Dataset
    from torch.utils.data import DataLoader

    images = Dataset(
        task.folder, task.image_size, augment_horizontal_flip=True, convert_image_to="RGB"
    )
    loader = DataLoader(
        images, task.batch, shuffle=True, pin_memory=True, num_workers=os.cpu_count() or 1
    )
    while True:
        for batch in loader:
            yield len(batch)


def diffusers_loader(task: Task) -> torch.utils.data.DataLoader:
    """Returns the loader of diffusers' training example, which has no data workers.

    It reads files directly instead of through the package `datasets`.
    """
    from PIL import Image
    from torchvision import transforms

    class Images(torch.utils.data.Dataset):
        paths = sorted(
            path for path in Path(task.folder).rglob("*") if path.suffix.lower() in SUFFIXES
        )

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(Image.open(self.paths[index]).convert("RGB"))

    transform = transforms.Compose(
        [
            transforms.Resize(task.image_size, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(task.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    return torch.utils.data.DataLoader(Images(), task.batch, shuffle=True)


def diffusers_batches(task: Task) -> Iterator[int]:
    loader = diffusers_loader(task)
    while True:
        for batch in loader:
            yield len(batch)


LOADERS = {"ours": our_batches, "lucidrains": lucidrains_batches, "diffusers": diffusers_batches}


def command(name: str, task: Task) -> list[str]:
    """Returns the command that starts a contestant."""
    return [sys.executable, __file__, name, json.dumps(asdict(task))]


if __name__ == "__main__":
    name, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    train, network, precision = CONTESTANTS[name]
    train(task, network, precision)
