"""A type checker sees an editable install, and finds the errors of a user's file and no others."""

import re
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

from hatchling.build import build_editable

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import torch
from torch import Tensor, nn

from diffusion_framework import DDIM, GaussianDiffusion, MinSNR, Trainer


class Mixer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels, self.image_size = 1, (8, 8)
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        result: Tensor = self.layers(x) + time.view(-1, 1, 1, 1)
        return result


def main() -> None:
    diffusion = GaussianDiffusion(Mixer(8), objective="v", loss_weight=MinSNR())
    loss: Tensor = diffusion(torch.rand(4, 1, 8, 8))
    print(loss.item())
    trainer = Trainer(diffusion, "images", train_batch_size=4, results_folder="results")
    trainer.train()
    images = diffusion.sample(4, sampler=DDIM(eta=0.5), steps=20, seed=0)
    print(images.mean().item())
    diffusion.sample("4")  # error
    DDIM(etaa=0.5)  # error
    trainer.trian()  # error
    wrong: int = diffusion.sample(4)  # error
    GaussianDiffusion(Mixer(8), timesteps="many")  # error
    Trainer(diffusion)  # error
    print(wrong)
"""


def test_mypy_finds_the_errors_of_a_script_and_no_others(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    venv.create(tmp_path / "environment")
    python = tmp_path / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    packages = next(tmp_path.glob("environment/**/site-packages"))
    with zipfile.ZipFile(tmp_path / build_editable(str(tmp_path))) as wheel:
        wheel.extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    cache = ROOT / ".mypy_cache" / "users"  # the first run takes half a minute, for PyTorch
    words = ["--strict", f"--python-executable={python}", f"--cache-dir={cache}", script]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = enumerate(script.read_text().splitlines(), 1)
    found = {int(number) for number in re.findall(r"script\.py:(\d+): error", done.stdout)}
    wanted = {number for number, line in lines if line.endswith("# error")}
    assert found == wanted, done.stdout + done.stderr
