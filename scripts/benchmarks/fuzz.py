"""Changes files at random and opens them: each must open, or be refused in one line.

    python scripts/benchmarks/fuzz.py --files 20000 --output fuzz.json

An audit hook watches that reading a file starts no process, opens no socket, imports no module and
writes nothing outside the folder of the file. The output holds a result for each kind of file; a
second run with the same output continues with the missing kinds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit import watched
from mutations import changed_bytes, changed_tree
from PIL import Image
from zarr_buffers import FORMATS, add_array, new_group

import diffusion_framework as df
from diffusion_framework.cli.outputs import Outputs
from diffusion_framework.data import IDX, ImageFolder, Shards
from diffusion_framework.interop import read_scheduler_config
from diffusion_framework.policies import load_episodes
from diffusion_framework.process.objectives import V
from diffusion_framework.samplers import Sampler
from diffusion_framework.samplers.tuned import Tuned
from diffusion_framework.samplers.tuned_file import TunedCalls, TunedFile
from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.storage.config import to_config
from diffusion_framework.storage.manifest import sealed
from diffusion_framework.training import EMA, Loading, Logging, Previews, post_hoc_ema

SLOW = 20.0  # seconds that opening one small file may take


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: Writes valid files to a folder and returns those to change.
        open: Reads everything in the folder.
        change: Returns changed content of a file.
        reseal: Whether to renew the checksums of the checkpoint, as an attacker can.
    """

    make: Callable[[Path], list[Path]]
    open: Callable[[Path], Any]
    change: Callable[[bytes, random.Random], bytes] = changed_bytes
    reseal: bool = False


def changed_json(data: bytes, chance: random.Random) -> bytes:
    return json.dumps(changed_tree(json.loads(data), chance)).encode("utf-8", "surrogatepass")


def network() -> torch.nn.Module:
    return df.UNet(dim=4, dim_mults=(1,), blocks=1, heads=1, dim_head=4, channels=1, image_size=4)


def run(folder: Path, steps: int = 1, **options: Any) -> df.Trainer:
    """A short run in the folder."""
    torch.manual_seed(0)
    return df.Trainer(
        df.GaussianDiffusion(network(), timesteps=2),
        [torch.zeros(1, 4, 4), torch.ones(1, 4, 4)],
        train_batch_size=2,
        train_num_steps=steps,
        save_and_sample_every=steps,
        results_folder=folder / "run",
        loading=Loading(num_workers=0),
        logging=Logging(progress=False),
        previews=Previews(every=0),
        mixed_precision="no",
        **options,
    )


def trained(folder: Path, **options: Any) -> Path:
    run(folder, **options).train()
    (checkpoint,) = (folder / "run" / "checkpoints").iterdir()
    config = checkpoint / "config.yaml"  # JSON is YAML, and can be changed as a tree
    config.write_text(json.dumps(Checkpoint.open(checkpoint).config))
    renew(config)
    return checkpoint


def renew(file: Path) -> None:
    """Renews the checksums of a checkpoint after a change of one file."""
    manifest = file.parent / "manifest.json"
    content = json.loads(manifest.read_text())
    data = file.read_bytes()
    if file != manifest:
        content["files"][file.name] = {
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    content.pop("seal", None)
    manifest.write_text(sealed(json.dumps(content, indent=1)))


def resume(folder: Path) -> None:
    run(folder).train(resume=True)


def open_model(folder: Path) -> None:
    df.GaussianDiffusion.from_pretrained(folder / "run", weights="model")


AVERAGES = {"steps": 2, "ema": EMA(profiles=(0.05, 0.1), snapshots=2), "ema_update_every": 1}


def of_averages(name: str) -> Callable[[Path], list[Path]]:
    """Returns files of this name in the checkpoint and the snapshots of a run with averages."""

    def make(folder: Path) -> list[Path]:
        checkpoint = trained(folder, **AVERAGES)
        for unread in ("model", "optimizer"):
            (checkpoint / f"{unread}.safetensors").unlink()
        shutil.rmtree(folder / "run" / "tensorboard", ignore_errors=True)
        return [*checkpoint.glob(name), *(folder / "run" / "ema" / "step-00000001").glob(name)]

    return make


def open_averages(folder: Path) -> None:
    post_hoc_ema(folder / "run", 0.055)


def pictures(folder: Path) -> list[Path]:
    """One image in each of several formats."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    image = Image.fromarray(pixels)
    options: dict[str, dict[str, Any]] = {
        "png": {},
        "jpg": {"exif": Image.Exif()},
        "gif": {},
        "bmp": {},
        "webp": {"lossless": True},
        "tiff": {"compression": "tiff_lzw"},
        "ppm": {},
        "tga": {},
        "jp2": {},
        "ico": {},
    }
    for ending, saving in options.items():
        image.save(folder / f"image.{ending}", **saving)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    if importlib.util.find_spec("tifffile"):
        import tifffile

        tifffile.imwrite(folder / "deep.tiff", pixels.astype(np.uint16) * 200, photometric="rgb")
    return sorted(folder.iterdir())


def open_pictures(folder: Path) -> None:
    dataset = ImageFolder(folder, image_size=8)
    for index in range(len(dataset)):
        dataset.draw(index, 0)


def shards(folder: Path) -> list[Path]:
    import tarfile

    path = folder / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for index in range(4):
            data = io.BytesIO()
            Image.fromarray(np.full((9, 9, 3), 60 * index, np.uint8)).save(data, "PNG")
            for name, content in ((f"{index}.png", data.getvalue()), (f"{index}.cls", b"1")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return [path]


def open_shards(folder: Path) -> None:
    dataset = Shards(
        str(folder / "shard.tar"), image_size=8, labels=True, cache_folder=folder / "cache"
    )
    for index in range(len(dataset)):
        dataset.draw(index, 0)


EPISODES = {"state": np.arange(24.0).reshape(12, 2), "action": np.ones((12, 2))}
ENDS = np.array([5, 12])


def npz(folder: Path) -> list[Path]:
    np.savez(folder / "stored.npz", **EPISODES, episode_ends=ENDS)
    np.savez_compressed(folder / "packed.npz", **EPISODES, episode_ends=ENDS)
    return sorted(folder.iterdir())


def zarr_buffer(folder: Path, version: int) -> list[Path]:
    group = new_group(folder, version)
    for name, values in {**EPISODES, "episode_ends": ENDS}.items():
        place = "meta" if name == "episode_ends" else "data"
        add_array(group, f"{place}/{name}", values)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def lerobot(folder: Path) -> list[Path]:
    import pyarrow
    from pyarrow import parquet

    columns = {
        "episode_index": [0] * 5 + [1] * 7,
        "frame_index": [*range(5), *range(7)],
        **{name: list(values) for name, values in EPISODES.items()},
    }
    (folder / "meta").mkdir()
    (folder / "data").mkdir()
    info = {"codebase_version": "v2.1", "features": {"state": {"dtype": "float32"}}}
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    parquet.write_table(pyarrow.table(columns), folder / "data" / "episodes.parquet")
    return [folder / "meta" / "info.json", folder / "data" / "episodes.parquet"]


def open_episodes(folder: Path) -> None:
    load_episodes(folder, ["action", "state"])


def sampler(folder: Path) -> list[Path]:
    df.UniPC(order=3).save_pretrained(folder)
    return [folder / "sampler.json"]


def tuned(folder: Path) -> list[Path]:
    found = TunedCalls(Tuned(df.UniPC(order=3), (-1.0, 0.5, 3.0)), 0.01, 0.02)
    parts = to_config(df.Sigmoid()), to_config(V())
    return [TunedFile(*parts, "ema", 1, 1.0, (found,)).write(folder)]


def scheduler(folder: Path) -> list[Path]:
    config = {"_class_name": "DDIMScheduler", "beta_start": 1e-4, "beta_end": 0.02}
    config |= {"beta_schedule": "linear", "timestep_spacing": "leading", "steps_offset": 1}
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return [folder / "scheduler_config.json"]


def idx(folder: Path) -> list[Path]:
    """The files of MNIST, with four images."""
    sizes = b"".join(size.to_bytes(4, "big") for size in (4, 9, 9))
    for name, content in (
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + sizes + bytes(range(81)) * 4),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01" + sizes[:4] + bytes(range(4))),
    ):
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def open_idx(folder: Path) -> None:
    dataset = IDX(folder, image_size=9, labels=True)
    for index in range(len(dataset)):
        dataset.draw(index, 0)


def samples(folder: Path) -> list[Path]:
    """The samples of an earlier call, beside a file of someone else."""
    outputs = Outputs(folder / "out")
    for index in range(3):
        outputs.write(f"{index:05d}.png", bytes([index]))
    (folder / "out" / "photo.png").write_bytes(b"mine")
    (folder / "00000.png").write_bytes(b"mine")
    return [folder / "out" / "index.csv"]


def overwrite(folder: Path) -> None:
    try:
        Outputs(folder / "out", overwrite=True).write("00000.png", b"new")
    finally:
        kept = [(folder / name).read_bytes() for name in ("out/photo.png", "00000.png")]
        if kept != [b"mine", b"mine"]:
            raise AssertionError("a file of someone else was changed")


def of_checkpoint(name: str) -> Callable[[Path], list[Path]]:
    return lambda folder: [trained(folder) / name]


KINDS = {
    "manifest, bytes": Kind(of_checkpoint("manifest.json"), open_model),
    "manifest, resealed": Kind(of_checkpoint("manifest.json"), resume, changed_json, True),
    "config": Kind(of_checkpoint("config.yaml"), open_model, changed_json, True),
    "config, resumed": Kind(of_checkpoint("config.yaml"), resume, changed_json, True),
    "config, bytes": Kind(of_checkpoint("config.yaml"), open_model, reseal=True),
    "state": Kind(of_checkpoint("state.json"), resume, changed_json, True),
    "weights": Kind(of_checkpoint("model.safetensors"), open_model, reseal=True),
    "optimizer": Kind(of_checkpoint("optimizer.safetensors"), resume, reseal=True),
    "averages, state": Kind(of_averages("state.json"), open_averages, changed_json, True),
    "averages, tensors": Kind(of_averages("profile-*.safetensors"), open_averages, reseal=True),
    "sampler": Kind(sampler, Sampler.from_pretrained, changed_json),
    "tuned": Kind(tuned, TunedFile.read, changed_json),
    "tuned, bytes": Kind(tuned, TunedFile.read),
    "scheduler": Kind(scheduler, read_scheduler_config, changed_json),
    "shard": Kind(shards, open_shards),
    "npz": Kind(npz, open_episodes),
    **{f"zarr {n}": Kind(partial(zarr_buffer, version=n), open_episodes) for n in FORMATS},
    "idx": Kind(idx, open_idx),
    "samples": Kind(samples, overwrite),
    "image": Kind(pictures, open_pictures),
}
if importlib.util.find_spec("pyarrow"):
    KINDS["lerobot"] = Kind(lerobot, open_episodes)


def fuzz(name: str, files: int, seed: int = 0) -> dict[str, Any]:
    """Opens changed files of a kind.

    Args:
        name: Kind of file, a key of KINDS.
        files: Number of changed files.
        seed: Seed of the changes.

    Returns:
        The number of files that opened and that were refused, the slowest, and the faults found.
    """
    kind, chance = KINDS[name], random.Random(f"{name} {seed}")
    ends: Counter[str] = Counter(opened=0, refused=0)
    faults, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, copy = Path(temporary) / "whole", Path(temporary) / "copy"
        whole.mkdir()
        targets = kind.make(whole)
        shutil.copytree(whole, copy)
        kind.open(copy)  # imports everything beforehand
        for index in range(files):
            shutil.rmtree(copy)
            shutil.copytree(whole, copy)
            target = copy / chance.choice(targets).relative_to(whole)
            data = kind.change(target.read_bytes(), chance)
            target.write_bytes(data)
            if kind.reseal:
                # Some manifests have no place for checksums after the change.
                with suppress(ValueError, AttributeError, TypeError, KeyError, RecursionError):
                    renew(target)
            began = time.perf_counter()
            end, fault = opened(kind, copy)
            slowest = max(slowest, time.perf_counter() - began)
            ends[end] += 1
            if fault:
                faults.append({"file": index, "name": target.name, "fault": fault})
    if slowest > SLOW:
        faults.append({"fault": f"the slowest file took {slowest:.1f} s"})
    return {"files": files, "seed": seed, **ends, "slowest": round(slowest, 2), "faults": faults}


def opened(kind: Kind, folder: Path) -> tuple[str, str | None]:
    """Opens a changed file; returns how it ended, and what should not have happened."""
    fault = None
    with watched() as seen, redirect_stderr(io.StringIO()):
        try:
            kind.open(folder)
            end = "opened"
        except (ValueError, OSError, FloatingPointError) as error:
            end, text = "refused", str(error)
            if "\n" in text or len(text) > 6000:
                fault = f"an error of several lines: {text[:300]}"
        except Exception as error:
            end, fault = "crashed", f"{type(error).__name__}: {str(error)[:300]}"
    if outside := [event for event in seen if str(folder) not in str(event)]:
        fault = f"side effect: {outside[0]}"
    return end, fault


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000, help="changed files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    results = {}
    if options.output and options.output.exists():
        results = json.loads(options.output.read_text())
    for name in options.kinds:
        if results.get(name, {}).get("files", 0) < options.files:
            results[name] = fuzz(name, options.files, options.seed)
            if options.output:
                options.output.write_text(json.dumps(results, indent=1))
        counts = {key: value for key, value in results[name].items() if key != "faults"}
        print(f"{name}: {counts}, {len(results[name]['faults'])} faults")
        for fault in results[name]["faults"][:10]:
            print(f"    {fault}")
    sys.exit(any(result["faults"] for result in results.values()))


if __name__ == "__main__":
    main()
