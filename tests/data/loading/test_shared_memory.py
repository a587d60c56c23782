"""Data workers with little or no shared memory: batches stay the same, and the reason is said."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion_framework.data.loading.handover import (
    PickledBatch,
    hand_over,
    received,
    warn_of_no_workers,
)

SCRIPT = """
import itertools, sys, warnings
import numpy as np
import torch
from diffusion_framework.data.loading.loader import loaded_batches, shuffled_batches
from diffusion_framework.data.wrapped import as_dataset

def same(samples):
    data = as_dataset(samples)
    order = lambda: shuffled_batches(data, 4, 3, 0, 0, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with loaded_batches(data, order(), 2, torch.device("cpu")) as batches:
            for batch, keys in zip(itertools.islice(batches, 6), order()):
                wanted = data.take(np.array([index for index, _ in keys]))
                assert torch.equal(batch, wanted)
    return " ".join(str(w.message) for w in caught if "hared memory" in str(w.message))

torch.manual_seed(0)
print("small:", same(torch.randn(16, 3, 4, 4)))
print("large:", same(torch.randn(16, 3, 256, 256)))
with open("/dev/shm/filler", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
print("none:", same(torch.randn(16, 3, 4, 4)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
def test_a_small_and_a_full_shared_memory_are_said_and_gone_round():
    """In a mount namespace with 1 MiB of it; a batch of the large samples takes 3 MiB."""
    space = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]
    mount = "mount -t tmpfs -o size=1m none /dev/shm"
    if subprocess.run([*space, mount], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let tests mount a file system")
    command = [*space, f'{mount} && exec "$0" -c "$1"', sys.executable, textwrap.dedent(SCRIPT)]
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    small, large, none = (line.partition(":")[2] for line in done.stdout.splitlines())
    assert not small.strip()
    assert large.count("no room for a batch (unable to allocate shared memory") == 1
    assert none.count("no room for data workers (No space left on device)") == 1
    for message in (large, none):
        assert "Fix: give /dev/shm more room" in message


def test_a_batch_without_room_is_pickled_with_all_its_parts(monkeypatch):
    batch = [torch.arange(6).reshape(2, 3), {"labels": torch.tensor([1, 2]), "text": ["a", "b"]}]
    shared = hand_over(batch)
    assert shared is batch and batch[0].is_shared() and batch[1]["labels"].is_shared()

    def fail(tensor):
        raise RuntimeError("unable to allocate\nshared memory")

    monkeypatch.setattr(Tensor, "share_memory_", fail)
    sent = hand_over([torch.zeros(2, dtype=torch.uint16), {"labels": torch.tensor([3])}])
    assert isinstance(sent, PickledBatch) and "\n" not in sent.reason
    with pytest.warns(UserWarning, match="unable to allocate shared memory.*Fix: ") as caught:
        images, condition = [*received(iter([sent, sent]))][1]
    assert len(caught) == 1
    assert images.dtype == torch.uint16 and condition["labels"].tolist() == [3]


def test_other_errors_of_starting_workers_stay_errors():
    with pytest.raises(OSError, match="Too many"):
        warn_of_no_workers(OSError(errno.EMFILE, "Too many open files"))
