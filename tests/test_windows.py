"""What Windows lacks, taken away: a run trains, is locked, resumes and samples without it."""

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import diffusion_framework

PACKAGE = Path(diffusion_framework.__file__).parent
ROOT = PACKAGE.parent

# The standard library and PyTorch stay those of this system; the package sees another one.
SCRIPT = """
import fcntl, os, signal, struct, sys, types
from pathlib import Path
import accelerate, filelock, numpy, psutil, torch, torch.multiprocessing, torchvision, PIL.Image
import torch.utils.data

def locking(descriptor, mode, size):
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    record = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, start, size, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, record)

sys.platform, os.O_BINARY = "win32", 0
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.modules["fcntl"] = sys.modules["resource"] = sys.modules["pwd"] = None
for name in ("fork", "pread", "preadv", "pwrite", "posix_fallocate", "memfd_create", "geteuid",
             "getuid", "O_DIRECTORY", "sched_getaffinity"):
    delattr(os, name)
for name in ("SIGALRM", "SIGCHLD", "SIGKILL", "SIGUSR1", "SIGHUP", "setitimer"):
    delattr(signal, name)

from diffusion_framework import GaussianDiffusion, Shards, Trainer, UNet
from diffusion_framework.training.loading import Loading
from diffusion_framework.training.log import Logging
from diffusion_framework.training.previews import Previews
from diffusion_framework.training.run_lock import RunLock

def trainer(data, folder, steps):
    model = UNet(dim=8, dim_mults=(1,), channels=1, image_size=8)
    return Trainer(GaussianDiffusion(model), data, train_batch_size=2, train_num_steps=steps,
                   results_folder=folder, loading=Loading(num_workers=0),
                   logging=Logging(progress=False), previews=Previews(every=0))

tar, results = map(Path, sys.argv[1:])
data = Shards([str(tar)], image_size=8, channels=1)
folder = results / "run"
trainer(data, folder, 2).train()
lock = RunLock(folder)
try:
    RunLock(folder)
    raise SystemExit("two runs in one folder")
except ValueError as error:
    assert f"process {os.getpid()} on" in str(error), error
lock.release()
trainer(data, folder, 3).train(resume=True)
assert b"\\r" not in b"".join(p.read_bytes() for p in folder.rglob("*.json"))
diffusion = GaussianDiffusion.from_pretrained(folder)
assert diffusion.sample(1, steps=1, seed=0).shape == (1, 1, 8, 8)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="simulates another system on Linux")
def test_a_run_needs_nothing_that_windows_lacks(tmp_path):
    from tar_shards import png, write_tar

    tar = write_tar(tmp_path / "a.tar", {f"{i}.png": png() for i in range(4)})
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, script, tar, tmp_path / "results"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr


def test_text_files_name_their_encoding():
    """Windows would write them in the encoding of its language, and read others' so."""
    unnamed = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            words = {option.arg for option in node.keywords}
            modes = [ast.unparse(word) for word in node.args[1:]]
            is_text = called.endswith((".read_text", ".write_text")) or (
                called == "open" and not any("b" in mode for mode in modes) and None not in words
            )
            if is_text and "encoding" not in words:
                unnamed.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not unnamed
