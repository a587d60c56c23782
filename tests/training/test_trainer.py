import csv
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from runs import assert_same_run, batches_of, stop_after, trainer, weights
from torch.utils.data import TensorDataset
from toys import QUIET, tiny_diffusion, tiny_unet

from diffusion_framework import GaussianDiffusion, ImageFolder, Trainer, UNet
from diffusion_framework.data import Digits
from diffusion_framework.data.loading.loader import to_device
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.storage.config import to_config
from diffusion_framework.storage.run_paths import absolute_from_run
from diffusion_framework.training import Compute, LearningRate, Loading, Logging, Previews, Saving
from diffusion_framework.training.signals import NotedSignals
from diffusion_framework.training.stopping import Guard

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_writes_checkpoints_samples_logs_and_its_config(ten_images, tmp_path):
    results = tmp_path / "a run"
    trainer(ten_images, results).train()
    assert [path.name for path in list_checkpoints(results)] == ["step-00000003", "step-00000006"]
    for step in (3, 6):
        grid = Image.open(results / "samples" / f"step-{step:08d}.png")
        grid.load()
        assert grid.mode in ("L", "RGB") and grid.size[0] > 3 * 8
    rows = list(csv.DictReader((results / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [2, 3, 4, 6]
    for row in rows:
        assert all(np.isfinite(float(value)) and float(value) > 0 for value in row.values())
    assert list((results / "tensorboard").glob("events*"))
    config = yaml.safe_load((list_checkpoints(results)[-1] / "config.yaml").read_text())
    assert absolute_from_run(config["data"], results)["init_args"]["folder"] == str(ten_images)
    assert config["trainer"]["train_batch_size"] == 4
    assert config["diffusion"]["init_args"]["model"]["init_args"]["dim"] == 8


def test_weights_move_and_the_average_follows(ten_images, tmp_path):
    before = {
        k: v.clone() for k, v in trainer(ten_images, tmp_path / "unused").model.state_dict().items()
    }
    trainer(
        ten_images, tmp_path / "run", train_num_steps=120, save_and_sample_every=120, ema_decay=0.9
    ).train()
    model, ema = weights(tmp_path / "run"), weights(tmp_path / "run", "ema")
    assert model.keys() == before.keys() == ema.keys()
    moved = sum((model[k] - before[k]).norm() for k in model)
    apart = sum((model[k] - ema[k]).norm() for k in model)
    assert moved > 0
    assert 0 < apart < moved


def test_the_loss_falls(tmp_path):
    run = trainer(
        Digits(),
        tmp_path,
        train_num_steps=150,
        save_and_sample_every=150,
        logging=Logging(every=30, progress=False),
        train_lr=3e-3,
        train_batch_size=32,
    )
    run.train()
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "log.csv").open())]
    assert losses[-1] < 0.7 * losses[0]


WORKERS_AND_A_SCHEDULE = {
    "loading": Loading(num_workers=1),
    "learning_rate": LearningRate("cosine", warmup_steps=2),
}


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulate_every": 2}, WORKERS_AND_A_SCHEDULE],
    ids=["plain", "accumulating", "workers and a schedule"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(ten_images, tmp_path, options):
    trainer(ten_images, tmp_path / "whole", **options).train()
    cut = trainer(ten_images, tmp_path / "cut", **options)
    stop_after(cut, 3)
    cut.train()
    again = trainer(ten_images, tmp_path / "cut", **options)
    again.train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_seed_determines_the_run(ten_images, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer(ten_images, tmp_path / name, seed=seed).train()
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert any(
        not torch.equal(v, weights(tmp_path / "c")[k]) for k, v in weights(tmp_path / "a").items()
    )


def test_accumulating_equals_one_large_batch(ten_images, tmp_path):
    run = trainer(
        ten_images, tmp_path, gradient_accumulate_every=2, train_lr=1e-30, max_grad_norm=1e9
    )
    grads = []
    real_step = run.state.optimizer.step

    def step(*args, **kwargs):
        grads.append([p.grad.clone() for p in run.state.model.parameters()])
        return real_step(*args, **kwargs)

    run.state.optimizer.step = step
    calls = []
    forward = run.model.forward

    def recording(images, **kwargs):
        generator = kwargs["generator"]
        calls.append((images.clone(), generator.get_state(), kwargs["self_condition_draw"]))
        return forward(images, **kwargs)

    run.model.forward = recording
    with batches_of(run) as batches:
        run.take_step(run.state, batches, Guard(run.accelerator, NotedSignals()))
    assert len(calls) == 2 and len(grads) == 1
    run.model.zero_grad()
    for images, state, coin in calls:
        generator = torch.Generator()
        generator.set_state(state)
        (forward(images, generator=generator, self_condition_draw=coin) / 2).backward()
    for expected, got in zip(run.model.parameters(), grads[0], strict=True):
        torch.testing.assert_close(got, expected.grad)


def test_a_second_run_in_the_same_folder_is_refused(ten_images, tmp_path):
    trainer(ten_images, tmp_path / "run").train()
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(ValueError, match="already holds a run. Fix: resume it"):
        trainer(ten_images, tmp_path / "run").train()
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))


def test_resuming_another_model_names_what_differs(ten_images, tmp_path):
    trainer(ten_images, tmp_path).train()
    other = Trainer(
        GaussianDiffusion(tiny_unet(dim=16), timesteps=4),
        ten_images,
        results_folder=tmp_path,
        train_batch_size=4,
    )
    with pytest.raises(ValueError, match=r"model\.dim: 8 before, 16 now"):
        other.train(resume=True)


def test_resume_extends_a_run_and_does_nothing_at_its_end(ten_images, tmp_path):
    trainer(ten_images, tmp_path).train()
    trainer(ten_images, tmp_path, train_num_steps=8).train(resume=True)
    assert Checkpoint.find(tmp_path).step == 8
    trainer(ten_images, tmp_path, train_num_steps=8).train(resume=True)
    assert Checkpoint.find(tmp_path).step == 8


def test_old_checkpoints_are_pruned(ten_images, tmp_path):
    trainer(ten_images, tmp_path, save_and_sample_every=1, saving=Saving(keep_newest=2)).train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000005", "step-00000006"]


def test_from_pretrained_gives_the_averaged_model_back(ten_images, tmp_path):
    run = trainer(ten_images, tmp_path)
    run.train()
    diffusion = GaussianDiffusion.from_pretrained(tmp_path)
    for a, b in zip(diffusion.parameters(), run.averaged.parameters(), strict=True):
        assert torch.equal(a, b)
    last = GaussianDiffusion.from_pretrained(list_checkpoints(tmp_path)[-1], weights="model")
    for a, b in zip(last.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert diffusion.sample(2, steps=2, show_progress=False).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="among ema, model, optimizer, got 'best'"):
        GaussianDiffusion.from_pretrained(tmp_path, weights="best")


def test_a_network_without_recorded_arguments_must_be_passed(ten_images, tmp_path):
    class Unrecorded(torch.nn.Module):
        channels, image_size = 1, 8

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1)

        def forward(self, x, time):
            return self.conv(x)

    Trainer(
        GaussianDiffusion(Unrecorded(), timesteps=2),
        ten_images,
        results_folder=tmp_path,
        train_batch_size=4,
        train_num_steps=1,
        previews=Previews(sampling_steps=1),
        **QUIET,
    ).train()
    with pytest.raises(
        ValueError,
        match="expected the recorded arguments of Unrecorded, got null. Fix: .* with model=",
    ):
        GaussianDiffusion.from_pretrained(tmp_path)
    assert GaussianDiffusion.from_pretrained(tmp_path, model=Unrecorded()).timesteps == 2


def test_class_labels_go_from_folders_to_the_grid(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(
                tmp_path / "data" / name / f"{i}.png"
            )
    data = ImageFolder(tmp_path / "data", 8, 1, labels=True)
    options = {
        "train_batch_size": 4,
        "train_num_steps": 1,
        "previews": Previews(sampling_steps=1),
        **QUIET,
    }
    diffusion = GaussianDiffusion(tiny_unet(num_classes=2), condition_dropout=0.0, timesteps=2)
    torch.nn.init.normal_(
        diffusion.model.conv_out.weight
    )  # zero weights here would block the gradients of earlier layers
    for layer in diffusion.modules():
        if hasattr(layer, "scale_shift"):
            torch.nn.init.normal_(layer.conv_out.weight)
    before = diffusion.model.embed_conditions.label.table.weight.detach().clone()
    Trainer(diffusion, data, results_folder=tmp_path / "run", **options).train()
    moved = weights(tmp_path / "run")["model.embed_conditions.label.table.weight"] != before
    assert moved.any(dim=1).tolist() == [True, True, False], (
        "both classes were in the batches, and never no class"
    )
    with pytest.raises(ValueError, match=r"labels in \[0, 0\], got 1 .*more classes"):
        Trainer(GaussianDiffusion(tiny_unet(num_classes=1)), data, **options)
    with pytest.raises(ValueError, match="Expected no conditions, got labels"):
        Trainer(tiny_diffusion(), data, **options)
    with pytest.raises(ValueError, match="labels"):
        Trainer(diffusion, ImageFolder(tmp_path / "data", 8, 1), **options)


def test_any_dataset_of_float_images_serves(tmp_path):
    class Floats(TensorDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0]

    trainer(Floats(torch.rand(6, 1, 8, 8)), tmp_path, train_num_steps=2).train()
    assert Checkpoint.find(tmp_path).step == 2


def test_dropout_is_a_function_of_the_seed_and_the_step(ten_images, tmp_path):
    def run(name, steps, resume=False):
        torch.manual_seed(0)
        diffusion = GaussianDiffusion(tiny_unet(dropout=0.5), timesteps=2)
        options = {
            "train_batch_size": 4,
            "save_and_sample_every": 2,
            "previews": Previews(sampling_steps=1),
        }
        options |= {"results_folder": tmp_path / name, "train_num_steps": steps, **QUIET}
        if resume:
            torch.rand(123)  # changes the state of the global generator
        Trainer(diffusion, ten_images, **options).train(resume)

    run("whole", 4)
    run("cut", 2)
    run("cut", 4, resume=True)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())


def test_two_trainers_of_one_process_are_independent(ten_images, tmp_path):
    trainer(ten_images, tmp_path / "alone", gradient_accumulate_every=2).train()
    first = trainer(ten_images, tmp_path / "first", gradient_accumulate_every=2)
    trainer(ten_images, tmp_path / "second", mixed_precision="bf16")
    first.train()
    assert_same_run(tmp_path / "alone", tmp_path / "first")
    assert Checkpoint.find(tmp_path / "first").state == Checkpoint.find(tmp_path / "alone").state


def test_a_damaged_newest_checkpoint_is_skipped(ten_images, tmp_path):
    trainer(ten_images, tmp_path / "whole").train()
    trainer(ten_images, tmp_path / "hurt").train()
    file = list_checkpoints(tmp_path / "hurt")[-1] / "ema.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.warns(
        UserWarning,
        match="step-00000006: .*damage: .*ema.safetensors.*The previous checkpoint is used",
    ):
        trainer(ten_images, tmp_path / "hurt").train(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "hurt")


def test_resuming_with_other_images_warns(ten_images, tmp_path):
    trainer(ten_images, tmp_path / "run").train()
    Image.new("L", (9, 9)).save(ten_images / "new.png")
    with pytest.warns(UserWarning, match="The resumed run differs from before: images: "):
        trainer(ten_images, tmp_path / "run", train_num_steps=7).train(resume=True)


def test_results_inside_the_data_are_refused(ten_images):
    with pytest.raises(ValueError, match="results_folder outside of the data folder"):
        trainer(ten_images, ten_images / "results")
    assert not (ten_images / "results").exists()


@pytest.mark.parametrize("channels", [2, 5])
def test_images_of_any_number_of_channels(tmp_path, channels):
    diffusion = GaussianDiffusion(tiny_unet(channels=channels), timesteps=2)
    options = {
        "train_batch_size": 4,
        "train_num_steps": 1,
        "previews": Previews(sampling_steps=1),
        **QUIET,
    }
    Trainer(
        diffusion, TensorDataset(torch.rand(6, channels, 8, 8)), results_folder=tmp_path, **options
    ).train()
    assert (tmp_path / "samples" / "step-00000001.png").is_file()


def test_a_subclass_network_and_odd_arguments_are_recorded(ten_images, tmp_path):
    class Mine(UNet):
        def __init__(self, extra=1, **kwargs):
            super().__init__(**kwargs)

    recorded = to_config(Mine(extra=np.int64(2), dim=8, dim_mults=(1, 2), image_size=8))[
        "init_args"
    ]
    assert type(to_config(np.float64(0.1))) is float
    assert recorded["extra"] == 2 and recorded["dim"] == 8 and "kwargs" not in recorded
    assert to_config(Mine(extra=torch.nn.SiLU, dim=8, dim_mults=(1,)))["init_args"] is None


def test_mixed_precision_trains_float32_weights(ten_images, tmp_path):
    trainer(ten_images, tmp_path / "plain").train()
    run = trainer(ten_images, tmp_path / "bf16", mixed_precision="bf16")
    seen = []
    run.model.model.conv_in.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    run.train()
    assert set(seen) == {torch.bfloat16}
    plain, mixed = weights(tmp_path / "plain"), weights(tmp_path / "bf16")
    assert all(v.dtype == torch.float32 for v in mixed.values())
    assert any(not torch.equal(v, plain[k]) for k, v in mixed.items())


def test_compiling_changes_no_result(ten_images, tmp_path):
    class OneLayer(torch.nn.Module):  # small, as compiling is slow
        channels, image_size = 1, 8

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, time):
            return self.conv(x) + time[:, None, None, None]

    after = []
    for name in ("plain", "compiled"):
        torch.manual_seed(0)
        diffusion = GaussianDiffusion(OneLayer(), timesteps=2)
        options = {
            "train_batch_size": 4,
            "train_num_steps": 2,
            "previews": Previews(sampling_steps=1),
        }
        options |= {
            "results_folder": tmp_path / name,
            "compute": Compute(compile=name == "compiled"),
            **QUIET,
        }
        run = Trainer(diffusion, ten_images, **options)
        run.train()
        after.append(weights(tmp_path / name))
    assert run.model.model._compiled_call_impl is not None
    torch.testing.assert_close(*after)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_batch_size": 0}, r"Expected train_batch_size of at least 1, got 0\. Fix: "),
        (
            {"train_batch_size": 11},
            "a batch of 11 samples, got 10 samples in .*. Fix: add samples, or lower train_",
        ),
        ({"train_lr": float("nan")}, "train_lr above 0, got nan"),
        ({"train_lr": -1.0}, "train_lr above 0, got -1.0"),
        ({"ema_decay": 1.5}, r"ema_decay in \[0, 1\], got 1.5"),
        ({"mixed_precision": "fp16"}, "a GPU for fp16, got none"),
        ({"convert_image_to": "no such mode"}, "Pillow mode"),
    ],
)
def test_bad_options_create_nothing(ten_images, tmp_path, options, message):
    if "mixed_precision" in options and torch.cuda.is_available():
        pytest.skip("fp16 works on a GPU")
    with pytest.raises(ValueError, match=message):
        trainer(ten_images, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_learning_rate_schedules():
    for schedule, half_way in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        rate = partial(LearningRate(schedule, warmup_steps=10).at, peak=2.0, num_steps=1010)
        assert [rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
        assert rate(510) == pytest.approx(2 * half_way)
        assert rate(1010) == pytest.approx(2.0 if schedule == "constant" else 0.0)


def test_a_batch_is_moved_unchanged():
    texts, mask = ["a", "b"], torch.tensor([True, False])
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert to_device(images, torch.device("cpu")) == (images, {})
    data, condition = to_device([images, torch.tensor([3, 4])], torch.device("cpu"))
    assert data is images and condition["labels"].tolist() == [3, 4]
    _, condition = to_device([images, {"a": {"b": mask}, "text": texts}], torch.device("cpu"))
    assert condition["a"]["b"] is mask and condition["text"] is texts


SCRIPT = """
import os, sys, torch
sys.path[:0] = [{root!r}, {tests!r}]
from diffusion_framework import Trainer
from diffusion_framework.data import Digits
from diffusion_framework.training import Previews
from toys import QUIET, Plain, tiny_diffusion
torch.manual_seed(0)
run = Trainer(
    tiny_diffusion(), Digits(), results_folder=sys.argv[1], train_batch_size=8,
    train_num_steps=4, gradient_accumulate_every=2, save_and_sample_every=2, num_samples=5,
    previews=Previews(sampling_steps=2), **QUIET
)
assert run.accelerator.num_processes == 2
run.train()
flat = torch.cat([p.detach().flatten() for p in run.model.parameters()])
sums = flat.double().sum().item(), flat.norm().item()
line = f"RANK {{run.accelerator.process_index}} {{sums[0]}} {{sums[1]}}\\n"
os.write(1, line.encode())  # one write, as both processes share the pipe
"""


def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests" / "support")))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=0",
        "--standalone",
    ]
    env = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "run")],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = sorted(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RANK"))
    assert [rank[0] for rank in ranks] == ["0", "1"]
    assert ranks[0][1:] == ranks[1][1:], "the processes hold different weights"
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == [
        "step-00000002",
        "step-00000004",
    ]
    assert (tmp_path / "run" / "samples" / "step-00000004.png").is_file()
    # One process resumes the run of two.
    torch.manual_seed(0)
    options = {
        "train_batch_size": 8,
        "gradient_accumulate_every": 2,
        "num_samples": 5,
        "previews": Previews(sampling_steps=2),
    }
    Trainer(
        tiny_diffusion(),
        Digits(),
        results_folder=tmp_path / "run",
        train_num_steps=5,
        **QUIET,
        **options,
    ).train(resume=True)
    assert Checkpoint.find(tmp_path / "run").step == 5


def test_checkpoint_state_is_plain(ten_images, tmp_path):
    trainer(ten_images, tmp_path).train()
    folder = list_checkpoints(tmp_path)[-1]
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
        "config.yaml",
        "state.json",
        "manifest.json",
    }
    assert json.loads((folder / "manifest.json").read_text())["step"] == 6
    assert json.loads((folder / "state.json").read_text())["ema_step"] == 6
