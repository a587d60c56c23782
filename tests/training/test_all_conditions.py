"""A run with every condition resumes bit for bit, from folders as from memory."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from runs import assert_same_run, stop_after
from toys import QUIET, tiny_unet

from diffusion_framework import GaussianDiffusion, ImageFolder, Trainer
from diffusion_framework.training import Previews
from diffusion_framework.training.summary import Outline, ending

SIZES = {"num_classes": 2, "image_channels": 1, "vector_dim": 2, "token_dim": 8}


@pytest.fixture
def folder(tmp_path):
    """Ten images with captions, classes and numbers in a table."""
    path, rows = tmp_path / "data", []
    path.mkdir()
    for i in range(10):
        pixels = np.random.default_rng(i).integers(0, 255, (12, 12), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
        row = {"file_name": f"{i}.png", "text": f"number {i}", "kind": "ab"[i % 2]}
        rows.append(row | {"x": i / 10, "y": -i})
    (path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


def trainer(folder, results):
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(tiny_unet(**SIZES), timesteps=4, condition_dropout=0.4)
    told = {"labels": "kind", "captions": "text", "vectors": ["x", "y"], "low_resolution": 4}
    data = ImageFolder(folder, 8, 1, **told)
    options = {"train_batch_size": 4, "train_num_steps": 6, "save_and_sample_every": 3}
    options |= {"num_samples": 4, "previews": Previews(sampling_steps=1), **QUIET}
    return Trainer(diffusion, data, results_folder=results, **options)


def test_a_run_with_all_conditions_resumes_exactly(folder, tmp_path):
    trainer(folder, tmp_path / "whole").train()
    cut = trainer(folder, tmp_path / "cut")
    stop_after(cut, 3)
    cut.train()
    trainer(folder, tmp_path / "cut").train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert ending(Outline.of(cut)).endswith(f"diffusion sample {tmp_path}/cut --text 'number 0'")
    pictures = [tmp_path / run / "samples" / "step-00000006.png" for run in ("whole", "cut")]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    opened = GaussianDiffusion.from_pretrained(tmp_path / "cut")
    assert [*opened.conditions] == ["labels", "image", "vector", "text"]
    drawn = opened.sample(2, text="number 3", labels=1, guidance=2.0, show_progress=False)
    assert torch.isfinite(drawn).all()
